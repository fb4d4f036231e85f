package deviceset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

// MakeRoot makes the root for one user alone. What it makes has its name for good: a
// pool whose root a power cut takes along would have to be adopted.
func (*Host) MakeRoot(root string, uid, gid int) error {
	root = filepath.Clean(root)
	last := root // that is there
	for last != filepath.Dir(last) {
		if _, err := os.Stat(last); err == nil {
			break
		}
		last = filepath.Dir(last)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	for dir := root; dir != last; dir = filepath.Dir(dir) {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return os.Chown(root, uid, gid)
}

// Lock takes root with flock(2) on a file in it.
func (*Host) Lock(root string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s is locked", ErrInUse, f.Name())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// slotPaths are those of the journal's files.
func slotPaths(root string) [2]string {
	return [2]string{filepath.Join(root, "state.0"), filepath.Join(root, "state.1")}
}

// MakeSlots makes the journal's files. The first one gets its name last, so either
// both are there and whole, or one is missing.
func (*Host) MakeSlots(root string, size int64) error {
	paths := slotPaths(root)
	if err := os.Remove(paths[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := paths[0] + ".new"
	for _, path := range []string{paths[1], fresh} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := growFile(path, size, Zeros); err != nil {
			return err
		}
	}
	if err := syncDir(root); err != nil {
		return err
	}
	if err := os.Rename(fresh, paths[0]); err != nil {
		return err
	}
	return syncDir(root)
}

// OpenSlots opens the journal's files.
func (*Host) OpenSlots(root string) (slots [2]Block, err error) {
	for i, path := range slotPaths(root) {
		f, err := openDirect(path, os.O_RDWR|unix.O_CLOEXEC)
		if err != nil {
			if i > 0 {
				err = errors.Join(err, slots[0].Close())
			}
			return [2]Block{}, err
		}
		slots[i] = &hostBlock{f}
	}
	return slots, nil
}

// growFile makes a file of size bytes or more. Killed while it writes zeros, it leaves
// the file shorter, and writes on the next time.
func growFile(path string, size int64, with Filling) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	have, err := f.Seek(0, io.SeekEnd)
	switch {
	case err != nil:
	case with == Blocks:
		err = allocate(f, have, max(have, size))
	case have >= size:
	case with == Zeros:
		err = writeZeros(f, have, size)
	default:
		err = f.Truncate(size)
	}
	if err == nil && (have < size || with == Blocks) {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// allocate gives a file of have bytes the blocks of size bytes, and then that length. If
// there are not so many, it gives those back that lie behind its end.
func allocate(f *os.File, have, size int64) error {
	if err := allocateRange(f, 0, have); err != nil {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || st.Blocks*512 < have {
			return err // else it has them, and a full xfs says so of anything
		}
	}
	if size == have {
		return nil
	}
	if err := allocateRange(f, have, size); err != nil {
		return errors.Join(err, f.Truncate(have))
	}
	return f.Truncate(size)
}

func allocateRange(f *os.File, at, end int64) error {
	for at < end {
		n := min(allocationStep, end-at)
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, n)
		switch {
		case errors.Is(err, unix.EINTR): // tmpfs stops at any signal
		case err != nil:
			return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		default:
			at += n
		}
	}
	return nil
}

// allocationStep is how much is allocated while the file's other users wait.
const allocationStep = 256 * mib

func writeZeros(f *os.File, from, to int64) error {
	zeros := make([]byte, mib)
	for from < to {
		n, err := f.WriteAt(zeros[:min(mib, to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// OpenFile attaches a file as a loop device, or finds it attached: the pool of a
// process that died holds it.
func (*Host) OpenFile(path string, size int64, with Filling) (Disk, error) {
	if err := prepareFile(path, size, with); err != nil {
		return nil, err
	}
	attached, err := attach(path)
	if err != nil {
		return nil, err
	}
	if err := attached.UpdateCapacity(); err != nil {
		return nil, errors.Join(err, attached.Close())
	}
	d, err := openBlockDevice(attached.Name(), os.O_RDWR)
	if err != nil {
		return nil, errors.Join(err, attached.Close())
	}
	d.loop, d.file = attached, path
	return d, nil
}

func prepareFile(path string, size int64, with Filling) error {
	if size == 0 {
		_, err := os.Stat(path)
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := growFile(path, size, with); err != nil {
		return err
	}
	return syncDir(dir)
}

func attach(path string) (*loop.Device, error) {
	found, err := loop.Find(path)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return loop.Attach(path, loop.Options{Autoclear: true})
	}
	for _, other := range found[1:] {
		err = errors.Join(err, other.Close())
	}
	return found[0], err
}

// Space returns what the file system of a path has, and has free for everybody.
func (*Host) Space(path string) (Space, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	for errors.Is(err, unix.ENOENT) && path != "/" {
		path = filepath.Dir(path)
		err = unix.Statfs(path, &st)
	}
	if err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return Space{Free: int64(st.Bavail) * st.Frsize, Total: int64(st.Blocks) * st.Frsize}, nil
}

// Allocated returns how many bytes a file takes of its file system.
func (*Host) Allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil // whatever the file system's blocks are (stat(2))
}
