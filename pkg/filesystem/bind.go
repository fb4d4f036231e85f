package filesystem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Bind shows at target what is at source: a mounted directory, or the node of a block
// device. Target is of the same kind and no symbolic link. It is read-only from the first
// moment, if it is to be (Linux 5.12). That keeps nobody from writing to a device whose
// node can be opened: the device must refuse that itself.
func Bind(source, target string, readOnly bool) error {
	if err := bind(source, target, readOnly); err != nil {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	return nil
}

func bind(source, target string, readOnly bool) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return err
		}
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// Beneath refuses a path that is not absolute, clean and below root, or that leads
// there by a symbolic link. Root itself may be reached by one. What does not exist yet
// is no error.
//
// It looks now: whoever may rename directories below root can change what was seen.
func Beneath(root, path string) error {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("path %q is not absolute and clean: %w", path, unix.EINVAL)
	}
	inside, err := filepath.Rel(root, path)
	if err != nil || inside == "." || inside == ".." || strings.HasPrefix(inside, "../") {
		return fmt.Errorf("path %q is not below %s: %w", path, root, unix.EINVAL)
	}
	dir, err := os.Open(real)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // it was only looked into
	fd, err := unix.Openat2(int(dir.Fd()), inside, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("path %q leads through a symbolic link: %w", path, unix.EINVAL)
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

// A Usage is how full a file system is.
type Usage struct {
	Total, Used, Available         int64 // bytes; available to who is not root
	Inodes, InodesUsed, InodesFree int64
}

// UsageOf asks the file system at a path.
func UsageOf(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return Usage{
		Total: int64(st.Blocks) * st.Frsize, Used: int64(st.Blocks-st.Bfree) * st.Frsize, Available: int64(st.Bavail) * st.Frsize,
		Inodes: int64(st.Files), InodesUsed: int64(st.Files - st.Ffree), InodesFree: int64(st.Ffree),
	}, nil
}
