package simulated

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A file system is one block of text at the begin of its device.
const superblock = "file system %s size %d dirty %v\n"

const blockSize = 4096

type mount struct {
	file     *dmsim.File
	dev      dm.DevNo
	readOnly bool
	node     bool // the device's node, rather than what is on it
}

// onDevice opens a device for a tool's or the kernel's own I/O.
func (m *Machine) onDevice(i dm.Info, do func(*dmsim.File) error) error {
	f, err := m.Kernel.Open(i.Dev)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (m *Machine) sizeOf(i dm.Info) (int64, error) {
	table, err := dm.ByName(m.Kernel, i.Name).Table()
	return table.Length().Bytes(), err
}

func readSuperblock(f *dmsim.File) (info filesystem.Info, err error) {
	b := make([]byte, blockSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return info, err
	}
	if bytes.Equal(b, make([]byte, blockSize)) {
		return info, filesystem.ErrBlank
	}
	if _, err := fmt.Sscanf(string(b), superblock, &info.Type, &info.Size, &info.Dirty); err != nil {
		return info, filesystem.ErrUnknown
	}
	return info, nil
}

func writeSuperblock(f *dmsim.File, info filesystem.Info) error {
	b := make([]byte, blockSize)
	copy(b, fmt.Sprintf(superblock, info.Type, info.Size, info.Dirty))
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// Probe reads the superblock.
func (m *Machine) Probe(i dm.Info) (info filesystem.Info, err error) {
	err = m.step("probe "+i.Name, func() error {
		return m.onDevice(i, func(f *dmsim.File) (err error) {
			info, err = readSuperblock(f)
			return err
		})
	})
	return info, err
}

// Signature tells whether a disk begins with anything but zeros.
func (m *Machine) Signature(d deviceset.Disk) (what string, err error) {
	b := make([]byte, blockSize)
	if _, err := d.ReadAt(b, 0); err != nil {
		return "", err
	}
	if !bytes.Equal(b, make([]byte, blockSize)) {
		what = "unknown data"
	}
	return what, nil
}

// Make writes something here and there, and the superblock last, as mkfs does.
func (m *Machine) Make(_ context.Context, i dm.Info, t filesystem.Type, _ filesystem.MakeOptions) error {
	size, err := m.sizeOf(i)
	if err != nil {
		return err
	}
	for _, at := range []int64{size / 2, size - blockSize} {
		err := m.step("mkfs "+i.Name, func() error {
			return m.onDevice(i, func(f *dmsim.File) error {
				_, err := f.WriteAt(bytes.Repeat([]byte{'m'}, blockSize), at/blockSize*blockSize)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return m.step("mkfs "+i.Name, func() error {
		return m.onDevice(i, func(f *dmsim.File) error {
			return writeSuperblock(f, filesystem.Info{Type: t, Size: size})
		})
	})
}

// Check makes a dirty file system clean.
func (m *Machine) Check(_ context.Context, i dm.Info, t filesystem.Type) error {
	return m.step("fsck "+i.Name, func() error {
		return m.onDevice(i, func(f *dmsim.File) error {
			info, err := readSuperblock(f)
			if err != nil || info.Type != t {
				return errors.Join(err, fmt.Errorf("it is %s, not %s", info.Type, t))
			}
			info.Dirty = false
			return writeSuperblock(f, info)
		})
	})
}

// GrowFS makes a mounted file system as large as its device.
func (m *Machine) GrowFS(_ context.Context, i dm.Info, _ string, t filesystem.Type) error {
	size, err := m.sizeOf(i)
	if err != nil {
		return err
	}
	return m.step("grow file system "+i.Name, func() error {
		return m.onDevice(i, func(f *dmsim.File) error {
			return writeSuperblock(f, filesystem.Info{Type: t, Size: size})
		})
	})
}

// Mount mounts a device; the mount outlives the process.
func (m *Machine) Mount(i dm.Info, path string, t filesystem.Type, o filesystem.MountOptions) error {
	return m.step("mount "+i.Name, func() error {
		f, err := m.Kernel.Open(i.Dev)
		if err != nil {
			return err
		}
		info, err := readSuperblock(f)
		if err == nil && info.Type != t {
			err = unix.EINVAL
		}
		m.world.mu.Lock()
		defer m.world.mu.Unlock()
		if err == nil && m.world.mounts[path] != nil {
			err = unix.EBUSY
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		m.world.mounts[path] = &mount{file: f, dev: i.Dev, readOnly: o.ReadOnly}
		return nil
	})
}

// Unmount unmounts what is mounted at a path, if anything is.
func (m *Machine) Unmount(_ context.Context, path string, _ bool) error {
	return m.step("unmount", func() error {
		m.world.mu.Lock()
		there := m.world.mounts[path]
		delete(m.world.mounts, path)
		m.world.mu.Unlock()
		if there == nil || there.node {
			return nil
		}
		return there.file.Close()
	})
}

// MountedAt tells what is mounted at a path.
func (m *Machine) MountedAt(path string) (deviceset.Mount, bool, error) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	if there := m.world.mounts[path]; there != nil && !there.node {
		return deviceset.Mount{Dev: there.dev, ReadOnly: there.readOnly}, true, nil
	}
	return deviceset.Mount{}, false, nil
}

// MountPoints returns where a device is mounted.
func (m *Machine) MountPoints(dev dm.DevNo) (paths []string, err error) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	for path, there := range m.world.mounts {
		if there.dev == dev && !there.node {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// Bind shows at target what is mounted at source, or the node of a device.
func (m *Machine) Bind(source, target string, readOnly bool) error {
	return m.step("bind", func() error {
		there := mount{readOnly: readOnly}
		dev, isNode, err := m.nodeAt(source)
		m.world.mu.Lock()
		defer m.world.mu.Unlock()
		from := m.world.mounts[source]
		switch {
		case err != nil:
			return err
		case m.world.mounts[target] != nil:
			return unix.EBUSY
		case isNode:
			there.node, there.dev = true, dev
		case from == nil:
			return unix.EINVAL
		default:
			there.dev, there.readOnly = from.dev, readOnly || from.readOnly
			if there.file, err = m.Kernel.Open(from.dev); err != nil {
				return err
			}
		}
		m.world.mounts[target] = &there
		return nil
	})
}

// nodeAt returns the device whose node is at a path.
func (m *Machine) nodeAt(path string) (dev dm.DevNo, ok bool, err error) {
	devices, err := dm.List(m.Kernel, "", "")
	for _, d := range devices {
		info, err := dm.ByName(m.Kernel, d.Name).Info()
		if err == nil && info.Node() == path {
			return info.Dev, true, nil
		}
	}
	return 0, false, err
}

// BoundAt is MountedAt, but for nodes too.
func (m *Machine) BoundAt(path string) (found deviceset.Mount, node, mounted bool) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	there := m.world.mounts[path]
	if there == nil {
		return found, false, false
	}
	return deviceset.Mount{Dev: there.dev, ReadOnly: there.readOnly}, there.node, true
}

// Bindings returns where a device is mounted, or its node.
func (m *Machine) Bindings(dev dm.DevNo) (paths []string) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	for path, there := range m.world.mounts {
		if there.dev == dev {
			paths = append(paths, path)
		}
	}
	return paths
}
