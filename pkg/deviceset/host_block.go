package deviceset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

// A hostBlock is a file or block device that was opened for direct I/O, if its file
// system has that.
type hostBlock struct{ *os.File }

// Size returns the length of a file or of a block device: seeking to the end works
// for both.
func (b *hostBlock) Size() (int64, error) { return b.Seek(0, io.SeekEnd) }

// ReadAt reads by way of a buffer that direct I/O can use.
func (b *hostBlock) ReadAt(p []byte, at int64) (int, error) {
	return dm.WithAligned(len(p), func(buffer []byte) (int, error) {
		n, err := b.File.ReadAt(buffer, at)
		copy(p, buffer[:n])
		return n, err
	})
}

// WriteAt writes by way of a buffer that direct I/O can use.
func (b *hostBlock) WriteAt(p []byte, at int64) (int, error) {
	return dm.WithAligned(len(p), func(buffer []byte) (int, error) {
		copy(buffer, p)
		return b.File.WriteAt(buffer, at)
	})
}

// Sync makes durable what was written: fdatasync(2).
func (b *hostBlock) Sync() error {
	if err := unix.Fdatasync(int(b.Fd())); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: b.Name(), Err: err}
	}
	return nil
}

// Discard gives back a part of a block device.
func (b *hostBlock) Discard(offset, length int64) error { return dm.Discard(b.File, offset, length) }

// openDirect opens a file for direct I/O where there is such a thing.
func openDirect(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(path, flags, 0)
	}
	return f, err
}

// A hostDisk is a block device, which may be a loop device.
type hostDisk struct {
	hostBlock
	dev  dm.DevNo
	loop *loop.Device // nil if it is none of ours
	file string       // behind the loop device
}

func openBlockDevice(path string, access int) (*hostDisk, error) {
	f, err := openDirect(path, access)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFBLK {
		err = fmt.Errorf("%w: %s is no block device", ErrInvalid, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &hostDisk{hostBlock: hostBlock{f}, dev: dm.DevNo(st.Rdev)}, nil
}

// Path returns the path of the block device.
func (d *hostDisk) Path() string { return d.Name() }

// Dev returns the number of the block device.
func (d *hostDisk) Dev() dm.DevNo { return d.dev }

// InUse tries to claim the disk, as whoever mounts it does (open(2): O_EXCL).
func (d *hostDisk) InUse() (bool, error) {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

// Claim locks the disk's node, as whoever partitions or formats a disk does (systemd:
// block device locking). It is not held longer than it takes to make a pool: udev does
// not look at a disk that is locked, and for that locks one for a moment itself.
func (d *hostDisk) Claim() (release func() error, err error) {
	fd := int(d.Fd())
	for wait := claimWait; ; wait *= 2 {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || wait > 64*claimWait {
			break
		}
		time.Sleep(wait)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s is locked", ErrInUse, d.Path())
	}
	return func() error { return unix.Flock(fd, unix.LOCK_UN) }, err
}

const claimWait = 10 * time.Millisecond

// Grow makes the file behind a loop device larger. A disk is as large as it is.
func (d *hostDisk) Grow(size int64, with Filling) error {
	if d.loop == nil {
		have, err := d.Size()
		if err == nil && have < size {
			err = fmt.Errorf("%w: %s has %d bytes, want %d: make the device larger first", ErrInvalid, d.Path(), have, size)
		}
		return err
	}
	if err := growFile(d.file, size, with); err != nil {
		return err
	}
	return d.loop.UpdateCapacity()
}

// Close closes the disk. A loop device goes when nobody uses it any more.
func (d *hostDisk) Close() error {
	err := d.hostBlock.Close()
	if d.loop != nil {
		err = errors.Join(err, d.loop.Close())
	}
	return err
}
