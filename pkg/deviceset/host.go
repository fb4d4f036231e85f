package deviceset

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A Host is the machine that the process runs on.
type Host struct {
	*dm.Control
	// Name is what it is called where it has no id: a container has a name of its own.
	Name string
}

// ThisMachine opens this machine's device-mapper.
func ThisMachine() (*Host, error) {
	control, err := dm.Open()
	if err != nil {
		return nil, err
	}
	return &Host{Control: control}, nil
}

// ID returns the machine's id (machine-id(5)), or its name if it has none. It is for
// people to read.
func (h *Host) ID() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 0 {
		return strings.TrimSpace(string(id))
	}
	if h.Name != "" {
		return h.Name
	}
	name, _ := os.Hostname()
	return name
}

// NewUUID returns 128 random bits.
func (*Host) NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Now returns the time.
func (*Host) Now() time.Time { return time.Now() }

// pinned calls do with the node of a device, which is the right one for as long as
// do runs.
func pinned(i dm.Info, do func(path string) error) error {
	f, err := dm.OpenNode(i, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	err = do(f.Name())
	return errors.Join(err, f.Close())
}

// Probe tells what file system is on a device.
func (*Host) Probe(i dm.Info) (found filesystem.Info, err error) {
	err = pinned(i, func(path string) (err error) {
		found, err = filesystem.ProbeDevice(path)
		return err
	})
	return found, err
}

// Signature tells what a disk carries.
func (*Host) Signature(d Disk) (string, error) {
	size, err := d.Size()
	if err != nil {
		return "", err
	}
	traces, err := filesystem.Scan(io.NewSectionReader(d, 0, size), size)
	if err != nil || traces.Blank() {
		return "", err
	}
	return traces.String(), nil
}

// Make makes a file system on a device.
func (*Host) Make(ctx context.Context, i dm.Info, t filesystem.Type, o filesystem.MakeOptions) error {
	return pinned(i, func(path string) error { return filesystem.Make(ctx, path, t, o) })
}

// Check checks the file system on a device.
func (*Host) Check(ctx context.Context, i dm.Info, t filesystem.Type) error {
	return pinned(i, func(path string) error { return filesystem.Check(ctx, path, t) })
}

// GrowFS makes a mounted file system as large as its device.
func (*Host) GrowFS(ctx context.Context, i dm.Info, mountPoint string, t filesystem.Type) error {
	return pinned(i, func(path string) error { return filesystem.Grow(ctx, path, mountPoint, t) })
}

// Mount mounts the file system on a device.
func (*Host) Mount(i dm.Info, target string, t filesystem.Type, o filesystem.MountOptions) error {
	return pinned(i, func(path string) error { return filesystem.Mount(path, target, t, o) })
}

// Unmount unmounts what is mounted at a path.
func (*Host) Unmount(ctx context.Context, path string, lazy bool) error {
	return filesystem.Unmount(ctx, path, filesystem.UnmountOptions{Lazy: lazy})
}

// MountedAt tells what is mounted at a path.
func (*Host) MountedAt(path string) (Mount, bool, error) {
	m, mounted, err := filesystem.MountedAt(path)
	return Mount{dm.MakeDevNo(m.Major, m.Minor), m.ReadOnly()}, mounted, err
}

// MountPoints returns where a device is mounted.
func (*Host) MountPoints(dev dm.DevNo) (paths []string, err error) {
	mounts, err := filesystem.MountsOf(dev.Major(), dev.Minor())
	for _, m := range mounts {
		paths = append(paths, m.Path)
	}
	return paths, err
}

// OpenDevice opens a dm device.
func (*Host) OpenDevice(i dm.Info, exclusive bool) (Block, error) {
	flags := os.O_RDWR | unix.O_DIRECT | unix.O_CLOEXEC
	if exclusive {
		flags |= unix.O_EXCL
	}
	f, err := dm.OpenNode(i, flags)
	if err != nil {
		return nil, err
	}
	return &hostBlock{f}, nil
}

// OpenDisk opens a block device by its path.
func (*Host) OpenDisk(path string) (Disk, error) {
	d, err := openBlockDevice(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// OpenNumber opens a block device by its number, for reading.
func (*Host) OpenNumber(dev dm.DevNo) (Block, error) {
	path, err := nodeOf(dev)
	if err != nil {
		return nil, err
	}
	d, err := openBlockDevice(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if d.dev != dev {
		return nil, errors.Join(fmt.Errorf("%s: %w: want %s, is %s", path, dm.ErrWrongNode, dev, d.dev), d.Close())
	}
	return d, nil
}

// Metadata opens the metadata on the device of that number.
func (*Host) Metadata(dev dm.DevNo) (Metadata, error) {
	path, err := nodeOf(dev)
	if err != nil {
		return nil, err
	}
	m, err := thinmeta.Open(path)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Node returns a path at which a dm device is.
func (*Host) Node(i dm.Info) (string, error) { return i.NodePath() }

// nodeOf returns a path of a block device, which has the name that devtmpfs gives it
// (Documentation/ABI/testing/sysfs-uevent).
func nodeOf(dev dm.DevNo) (string, error) {
	event, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/uevent", dev))
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(event), "\n") {
		if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
			return dm.NodePath(name, dev)
		}
	}
	return "", fmt.Errorf("block device %s has no node", dev)
}
