// Package loop attaches files as block devices.
//
// A loop device is known by the inode behind it, never by its number or by the
// path it was attached with: the kernel reuses numbers, and files are renamed.
//
// It does not make, grow or remove the files.
package loop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

const controlNode = "/dev/loop-control"

// controlMinor is its number (include/linux/miscdevice.h: LOOP_CTRL_MINOR).
const controlMinor = 237

// Options say how a file is attached.
type Options struct {
	ReadOnly bool
	// Autoclear detaches the device when it is last closed. Attach returns it
	// open, so close it only when something else, such as a table, holds it.
	Autoclear bool
	// BlockSize is the device's logical block size in bytes, a power of two from
	// 512 to the page size; 0 lets the kernel choose.
	BlockSize uint32
}

// A Device is a loop device, open. It has the right node whatever happens to its
// name in /dev.
type Device struct {
	*os.File
}

// Status is what the kernel tells of a loop device
// (include/uapi/linux/loop.h: struct loop_info64).
type Status struct {
	Number    int             // the N of /dev/loopN
	Dev       devmapper.DevNo // of the loop device itself
	BackingFS devmapper.DevNo // st_dev of the backing file
	Inode     uint64          // st_ino of the backing file
	DirectIO  bool            // the page cache is not used twice
	Autoclear bool
	ReadOnly  bool
}

// Attach makes a loop device of the file at path and returns it open. It does
// direct I/O where the file system can; where it cannot (tmpfs before Linux 6.6)
// the page cache is used, which the Status tells.
func Attach(path string, o Options) (*Device, error) {
	backing, err := openBacking(path, o)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	defer func() { _ = backing.Close() }() // nothing was written through it
	d, err := attachFree(backing, o)
	for tries := 1; errors.Is(err, unix.EBUSY) && tries < attempts; tries++ {
		d, err = attachFree(backing, o) // somebody else took that number first
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", path, err)
	}
	return d, nil
}

// attempts bounds how often another free number is asked for: one that is offered
// and refused again and again is held by somebody who does not use it.
const attempts = 64

// openBacking opens the file for direct I/O if its file system lets it. A loop
// device that were told to do it nevertheless might fail all I/O: on an overlay
// over a file system without it, the kernel finds out too late.
func openBacking(path string, o Options) (*os.File, error) {
	f, err := os.OpenFile(path, o.access()|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(path, o.access(), 0)
	}
	return f, err
}

func (o Options) access() int {
	if o.ReadOnly {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// attachFree attaches backing in one request, so that no half-configured device
// is ever visible (Linux 5.8).
func attachFree(backing *os.File, o Options) (*Device, error) {
	number, err := freeNumber()
	if err != nil {
		return nil, err
	}
	config, err := o.config(backing)
	if err != nil {
		return nil, err
	}
	f, err := openNode(fmt.Sprintf("loop%d", number), o.access())
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(f.Fd()), config); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "configure", Path: f.Name(), Err: err}, f.Close())
	}
	return &Device{f}, nil
}

func (o Options) config(backing *os.File) (*unix.LoopConfig, error) {
	config := &unix.LoopConfig{Fd: uint32(backing.Fd()), Size: o.BlockSize}
	if o.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.Autoclear {
		config.Info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	opened, err := unix.FcntlInt(backing.Fd(), unix.F_GETFL, 0)
	if opened&unix.O_DIRECT != 0 {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name()) // for losetup's eyes alone
	return config, err
}

func freeNumber() (int, error) {
	path, err := devmapper.MiscPath("loop-control", controlMinor)
	if err != nil {
		return 0, err
	}
	control, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("%w (modprobe loop)", err)
	}
	defer func() { _ = control.Close() }()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		err = &fs.PathError{Op: "get a free number from", Path: controlNode, Err: err}
	}
	return number, err
}

// Find returns the devices that the file at path is attached to, open for reading,
// in no order. There is at most one unless somebody attached the file twice.
func Find(path string) (found []*Device, err error) {
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return nil, &fs.PathError{Op: "find loop device of", Path: path, Err: err}
	}
	attached, err := filepath.Glob("/sys/block/loop*/loop") // there while a file is attached
	if err != nil {
		return nil, err
	}
	for _, sysfs := range attached {
		d, err := open(filepath.Base(filepath.Dir(sysfs)))
		if err != nil && gone(sysfs) {
			continue // somebody else's, and detached meanwhile
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(found))
		}
		s, err := d.Status()
		if err == nil && s.BackingFS == devmapper.DevNo(file.Dev) && s.Inode == file.Ino {
			found = append(found, d)
			continue
		}
		if err = errors.Join(ignore(err, unix.ENXIO), d.Close()); err != nil { // ENXIO: detached meanwhile
			return nil, errors.Join(err, closeAll(found))
		}
	}
	return found, nil
}

func gone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

func closeAll(devices []*Device) (err error) {
	for _, d := range devices {
		err = errors.Join(err, d.Close())
	}
	return err
}

func open(name string) (*Device, error) {
	f, err := openNode(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return &Device{f}, nil
}

// openNode opens a loop device by its name, wherever its node is.
func openNode(name string, access int) (*os.File, error) {
	text, err := os.ReadFile(filepath.Join("/sys/block", name, "dev"))
	if err != nil {
		return nil, err
	}
	dev, err := devmapper.ParseDevNo(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	path, err := devmapper.NodePath(name, dev)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, access, 0)
}

// Status describes the device: ENXIO if no file is attached.
func (d *Device) Status() (Status, error) {
	info, err := unix.IoctlLoopGetStatus64(int(d.Fd()))
	if err != nil {
		return Status{}, &fs.PathError{Op: "loop status of", Path: d.Name(), Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return Status{}, &fs.PathError{Op: "stat", Path: d.Name(), Err: err}
	}
	number, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(d.Name()), "loop"))
	if err != nil {
		return Status{}, err
	}
	return Status{
		Number:    number,
		Dev:       devmapper.DevNo(st.Rdev),
		BackingFS: devmapper.DevNo(info.Device),
		Inode:     info.Inode,
		DirectIO:  info.Flags&unix.LO_FLAGS_DIRECT_IO != 0,
		Autoclear: info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0,
		ReadOnly:  info.Flags&unix.LO_FLAGS_READ_ONLY != 0,
	}, nil
}

// UpdateCapacity takes over the size that the backing file has grown to.
func (d *Device) UpdateCapacity() error {
	return d.control("update the capacity of", unix.LOOP_SET_CAPACITY)
}

// Detach lets go of the backing file; the Device stays to be closed. If others
// have it open, it detaches when the last of them closes it.
func (d *Device) Detach() error { return d.control("detach", unix.LOOP_CLR_FD) }

func (d *Device) control(what string, request uint) error {
	if err := unix.IoctlSetInt(int(d.Fd()), request, 0); err != nil {
		return &fs.PathError{Op: what, Path: d.Name(), Err: err}
	}
	return nil
}
