package filesystem

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ProbeDevice is Probe for a block device or a file with its image. It reads
// what is on the device, not what the page cache remembers of it.
func ProbeDevice(path string) (Info, error) { return look("probe", path, Probe) }

// ScanDevice is Scan for a block device or a file with its image.
func ScanDevice(path string) (Traces, error) { return look("scan", path, Scan) }

// look opens the device at path and shows it to do.
func look[T any](verb, path string, do func(io.ReaderAt, int64) (T, error)) (T, error) {
	var result T
	f, size, err := openDevice(path)
	if err == nil {
		defer f.Close()
		result, err = do(f, size)
	}
	if err != nil {
		return result, fmt.Errorf("%s %s: %w", verb, path, err)
	}
	return result, nil
}

// openDevice opens a device for reading, and returns its bytes. As it is not
// opened for writing, udev has no reason to look at it when it is closed.
func openDevice(path string) (*directFile, int64, error) {
	const flags = os.O_RDONLY | unix.O_NONBLOCK // a FIFO must not hold us up
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // a file on tmpfs, before Linux 6.6
		f, err = os.OpenFile(path, flags, 0)
	}
	if err != nil {
		return nil, 0, errors.Unwrap(err)
	}
	size, err := sizeOf(f)
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return &directFile{f}, size, nil
}

// sizeOf returns the bytes of a block device or file.
func sizeOf(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if m := st.Mode(); !m.IsRegular() && m.Type() != fs.ModeDevice {
		return 0, fmt.Errorf("%w: neither block device nor file, but %s", unix.ENOTBLK, m)
	}
	return f.Seek(0, io.SeekEnd)
}

// deviceSize returns the bytes of the device at path.
func deviceSize(path string) (int64, error) {
	f, size, err := openDevice(path)
	if err != nil {
		return 0, err
	}
	return size, f.Close()
}

// A directFile is read with O_DIRECT, which wants all to be aligned.
type directFile struct{ *os.File }

// directAlign is a multiple of the sectors of all disks there are.
const directAlign = 4096

// ReadAt reads whole sectors around what is asked for.
func (f *directFile) ReadAt(b []byte, offset int64) (int, error) {
	skip := int(offset % directAlign)
	length := (skip + len(b) + directAlign - 1) / directAlign * directAlign
	pages, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Munmap(pages) }()
	n, err := f.File.ReadAt(pages, offset-int64(skip))
	n = copy(b, pages[min(skip, n):n])
	if n == len(b) {
		err = nil // the end of the device is behind what was asked for
	}
	return n, err
}

// A deviceNumber is the device number of a block device.
type deviceNumber struct{ major, minor uint32 }

func (d deviceNumber) String() string { return fmt.Sprintf("%d:%d", d.major, d.minor) }

// numberOf returns the device number of the block device at path.
func numberOf(path string) (deviceNumber, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return deviceNumber{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return deviceNumber{}, &fs.PathError{Op: "stat", Path: path, Err: unix.ENOTBLK}
	}
	return deviceNumber{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, nil
}

// kernelName returns what the kernel calls the device, as dm-3 or loop0.
func (d deviceNumber) kernelName() (string, error) {
	link, err := os.Readlink("/sys/dev/block/" + d.String())
	return filepath.Base(link), err
}
