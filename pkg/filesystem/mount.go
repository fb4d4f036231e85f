package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions say how a file system is mounted.
type MountOptions struct {
	Options  []string // as for mount -o; each may be a list with commas
	ReadOnly bool     // whatever Options say
	Label    string   // SELinux context of all files; "" leaves each its own

	// XFSNoSpaceRetries is how often xfs tries again to write metadata that its
	// device has no space for, or an I/O error, before it shuts down. Without,
	// it tries for ever and cannot be unmounted. Other types have no such number.
	XFSNoSpaceRetries *uint
}

// Mount mounts the file system of type t on a block device at target, which is a
// directory and no symbolic link. After an error nothing is mounted that was not
// before; the error has what the kernel logged of the matter, if that can be
// read.
//
// A device that is mounted already is mounted once more, with its flags but,
// as the kernel has it, the other options of the first time.
func Mount(device, target string, t Type, o MountOptions) error {
	call, err := o.compile(t)
	if err == nil {
		err = mustBeDirectory(target)
	}
	if err == nil {
		err = call.do(device, target, t)
	}
	if err == nil && t == XFS && o.XFSNoSpaceRetries != nil {
		if err = limitRetries(device, *o.XFSNoSpaceRetries); err != nil {
			err = errors.Join(err, Unmount(context.Background(), target, UnmountOptions{Lazy: true}))
		}
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s as %s with options %q: %w", device, target, t, o.words(call), err)
	}
	return nil
}

// words lists the options for an error.
func (o MountOptions) words(c mountCall) string {
	words := c.data
	if c.data == nil { // they were not understood
		words = o.Options
	}
	if c.flags&unix.MS_RDONLY != 0 {
		words = append([]string{"ro"}, words...)
	}
	return strings.Join(words, ",")
}

// mustBeDirectory refuses a symbolic link: it would be mounted at its end, where
// neither Unmount nor MountedAt looks.
func mustBeDirectory(path string) error {
	st, err := os.Lstat(path)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "lstat", Path: path, Err: unix.ENOTDIR}
	}
	return err
}

// do calls mount(2).
func (c mountCall) do(device, target string, t Type) error {
	log := openKernelLog()
	defer log.close()
	err := unix.Mount(device, target, string(t), c.flags, c.String())
	if err == nil {
		return nil
	}
	if words := log.about(device, t); words != "" {
		return fmt.Errorf("%w (kernel: %s)", err, words)
	}
	return err
}
