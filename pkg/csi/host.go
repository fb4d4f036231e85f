package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A Host is where volumes are published: what the device set's own mounts do not cover.
type Host interface {
	// Bind shows at target what is at source, a directory or a device's node.
	Bind(source, target string, readOnly bool) error
	// Unmount takes away what is mounted at target; that nothing is, is no error.
	Unmount(ctx context.Context, target string) error
	// MountedAt tells what is mounted at a path: the device of the file system or, where
	// that is a device's node, the device itself.
	MountedAt(path string) (m Mounted, ok bool, err error)
	// MountPoints returns where a device is mounted, as a file system or by its node.
	MountPoints(dm.DevNo) ([]string, error)
	// Node returns a path of a device's node.
	Node(dm.Info) (string, error)
	// IsOurs reports whether a device is one of a device set's, of whatever pool. It is
	// asked of what is mounted where the kubelet of this node has a volume of ours: the
	// pool may be closed, or not be there any more, and what it left must go all the same.
	// Where several nodes share a kernel they share no mounts, so this answers for no
	// other node's. All else goes by the UUID of one pool.
	IsOurs(dm.DevNo) (bool, error)
	// Usage asks the file system at a path how full it is.
	Usage(path string) (filesystem.Usage, error)
}

// Mounted is what is mounted somewhere.
type Mounted struct {
	Dev      dm.DevNo
	Node     bool // the node of the device, rather than what is on it
	Gone     bool // and the device is no more
	ReadOnly bool
}

// ThisHost is the machine that the process runs on.
type ThisHost struct{}

// Bind is filesystem.Bind.
func (ThisHost) Bind(source, target string, readOnly bool) error {
	return filesystem.Bind(source, target, readOnly)
}

// Unmount is filesystem.Unmount, and never lazy: success means that it is gone.
func (ThisHost) Unmount(ctx context.Context, target string) error {
	return filesystem.Unmount(ctx, target, filesystem.UnmountOptions{})
}

// Usage is filesystem.UsageOf.
func (ThisHost) Usage(path string) (filesystem.Usage, error) { return filesystem.UsageOf(path) }

// MountedAt tells what is mounted at a path.
func (ThisHost) MountedAt(path string) (Mounted, bool, error) {
	m, ok, err := filesystem.MountedAt(path)
	if err != nil || !ok {
		return Mounted{}, false, err
	}
	found := Mounted{Dev: dm.MakeDevNo(m.Major, m.Minor), ReadOnly: m.ReadOnly()}
	if !isNode(m) {
		return found, true, nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Mounted{}, false, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		found.Node, found.Dev = true, dm.DevNo(st.Rdev)
		found.Gone = strings.HasSuffix(m.Root, deleted) || !exists(found.Dev)
	}
	return found, true, nil
}

// exists reports whether there is a block device of that number. Nobody removes the nodes
// of one that is gone but devtmpfs.
func exists(dev dm.DevNo) bool {
	_, err := os.Lstat(fmt.Sprintf("/sys/dev/block/%s", dev))
	return !errors.Is(err, fs.ErrNotExist)
}

// Node is dm.Info.NodePath.
func (ThisHost) Node(i dm.Info) (string, error) { return i.NodePath() }

// IsOurs reads the device's UUID from sysfs.
func (ThisHost) IsOurs(dev dm.DevNo) (bool, error) {
	uuid, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/dm/uuid", dev))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.HasPrefix(string(uuid), deviceset.UUIDPrefix), err
}

// deleted ends the name of what is mounted and has been removed (proc_pid_mountinfo(5)).
const deleted = "//deleted"

// isNode reports whether m may be the mount of a node in /dev.
func isNode(m filesystem.MountPoint) bool {
	return strings.HasPrefix(m.Root, "/dm-") && (m.FSType == "devtmpfs" || m.FSType == "tmpfs")
}

// MountPoints returns where a device is mounted.
func (ThisHost) MountPoints(dev dm.DevNo) (paths []string, err error) {
	all, err := filesystem.Mounts()
	if err != nil {
		return nil, err
	}
	node := fmt.Sprintf("/dm-%d", dev.Minor())
	for _, m := range all {
		if dm.MakeDevNo(m.Major, m.Minor) == dev || isNode(m) && strings.TrimSuffix(m.Root, deleted) == node {
			paths = append(paths, m.Path)
		}
	}
	return paths, nil
}

// makeTarget makes what a volume is to be shown at, if it is not there, and reports
// whether it did. What it is below must be there.
func makeTarget(path string, block bool) (made bool, err error) {
	if block {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o640)
		if err == nil {
			return true, f.Close()
		}
		return false, unlessThere(path, err, fs.FileMode.IsRegular)
	}
	if err := os.Mkdir(path, 0o750); err != nil {
		return false, unlessThere(path, err, fs.FileMode.IsDir)
	}
	return true, nil
}

func unlessThere(path string, err error, suits func(fs.FileMode) bool) error {
	if st, statErr := os.Lstat(path); statErr == nil && suits(st.Mode()) {
		return nil
	}
	return err
}

// removeTarget removes what makeTarget made: an empty directory or an empty file. All
// else is somebody's data.
func removeTarget(path string) error {
	st, err := os.Lstat(path)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return err
	case st.Mode().IsRegular() && st.Size() > 0:
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	case !st.Mode().IsRegular() && !st.IsDir():
		return fmt.Errorf("%s is neither a file nor a directory: %w", path, fs.ErrInvalid)
	}
	return os.Remove(path)
}
