package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ownNodes is where nodes are made that /dev lacks: a tmpfs of its own, because /run may
// be one on which nodes cannot be opened.
var ownNodes = "/run/csi-dmthin/dev"

var makingNode sync.Mutex // one at a time does

// NodePath returns a path of the block device dev, which devtmpfs calls name. Where /dev
// is no devtmpfs, as in a container that is a Kubernetes node, devices that are made later
// do not show there, and get a node of our own. Of a device that is not there it is the
// path in /dev: opening that tells.
func NodePath(name string, dev DevNo) (string, error) {
	path := filepath.Join("/dev", name)
	if isNode(path, unix.S_IFBLK, dev) || !inKernel(dev) {
		return path, nil
	}
	return ownNode(name, unix.S_IFBLK, dev)
}

// MiscPath returns a path of the character device with that minor number of the misc
// driver, which devtmpfs calls name. Opening it has the kernel load the module of it.
func MiscPath(name string, minor uint32) (string, error) {
	const miscMajor = 10
	path := filepath.Join("/dev", name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return ownNode(name, unix.S_IFCHR, MakeDevNo(miscMajor, minor))
}

func isNode(path string, kind uint32, dev DevNo) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == kind && DevNo(st.Rdev) == dev
}

// inKernel reports whether there is a block device of that number.
func inKernel(dev DevNo) bool {
	_, err := os.Lstat(fmt.Sprintf("/sys/dev/block/%s", dev))
	return err == nil
}

func ownNode(name string, kind uint32, dev DevNo) (string, error) {
	makingNode.Lock()
	defer makingNode.Unlock()
	path := filepath.Join(ownNodes, strings.ReplaceAll(name, "/", "!"))
	if isNode(path, kind, dev) {
		return path, nil
	}
	err := mountOwnNodes()
	if err == nil {
		err = ignoreAbsence(os.Remove(path)) // of another device
	}
	if err == nil {
		err = unix.Mknod(path, kind|0o600, int(dev))
	}
	if err != nil && !isNode(path, kind, dev) { // else another process made it
		return "", fmt.Errorf("/dev has no %s, and a node of our own could not be made: %w", name, &fs.PathError{Op: "mknod", Path: path, Err: err})
	}
	return path, nil
}

func mountOwnNodes() error {
	if err := os.MkdirAll(ownNodes, 0o700); err != nil {
		return err
	}
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(ownNodes, &here), unix.Stat(filepath.Dir(ownNodes), &above)); err != nil {
		return err
	}
	if here.Dev != above.Dev {
		return nil // it is mounted
	}
	if err := unix.Mount("csi-dmthin", ownNodes, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700,size=1m,nr_inodes=0"); err != nil {
		return &fs.PathError{Op: "mount tmpfs", Path: ownNodes, Err: err}
	}
	return nil
}

func ignoreAbsence(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
