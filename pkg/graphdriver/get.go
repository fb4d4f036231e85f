package graphdriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// Get mounts a layer, if it is not mounted already, and returns where its files are.
// Each Get is answered by a Put. A layer that is mounted for writing serves who only
// reads; one that is mounted read-only is deviceset.ErrExists to who wants to write.
func (d *Driver) Get(id string, o MountOpts) (dir string, err error) {
	defer d.layers.Lock(id)()
	if err := d.get(id, o); err != nil {
		return "", fmt.Errorf("get layer %s: %w", id, err)
	}
	return filepath.Join(d.mountPoint(id), rootfs), nil
}

const (
	rootfs = "rootfs" // the layer's files
	idFile = "id"     // the name of the first layer that had them, for who finds the device without a journal
)

func (d *Driver) get(id string, o MountOpts) error {
	if !d.Exists(id) {
		return deviceset.ErrNotFound
	}
	there, mounted, err := filesystem.MountedAt(d.mountPoint(id))
	switch {
	case err != nil:
		return err
	case !mounted:
		return d.getFirst(id, o)
	}
	// The same again makes sure that it is this layer that is mounted, and that a Get
	// which was cut short has left nothing undone.
	if !there.ReadOnly() {
		o.Options = append(slices.Clone(o.Options), "rw")
	}
	if err := d.mount(id, o); err != nil {
		return err
	}
	count, err := d.count(id)
	if err != nil {
		return err
	}
	return d.setCount(id, count+1)
}

func (d *Driver) getFirst(id string, o MountOpts) error {
	err := d.makeMountPoint(id)
	if err == nil {
		err = d.setCount(id, 1)
	}
	if err == nil {
		err = d.mount(id, o)
	}
	if err != nil {
		return errors.Join(err, d.letGo(id))
	}
	return nil
}

// mount mounts a layer with what each has beside its files.
func (d *Driver) mount(id string, o MountOpts) error {
	if err := d.MountDevice(id, d.mountPoint(id), o); err != nil {
		return err
	}
	err := d.fill(id)
	if errors.Is(err, unix.EROFS) {
		return d.mountFilled(id, o)
	}
	return err
}

// mountFilled mounts a layer for writing first. It has no files yet, so nobody uses it
// where it is mounted read-only.
func (d *Driver) mountFilled(id string, o MountOpts) error {
	path, writable := d.mountPoint(id), o
	writable.Options = append(slices.Clone(o.Options), "rw")
	for _, step := range []func() error{
		func() error { return d.UnmountDevice(id, path) },
		func() error { return d.MountDevice(id, path, writable) },
		func() error { return d.fill(id) },
		func() error { return d.UnmountDevice(id, path) },
		func() error { return d.MountDevice(id, path, o) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// fill makes what each layer has beside its files. The id comes last: what has one has
// the rest.
func (d *Driver) fill(id string) error {
	root, name := filepath.Join(d.mountPoint(id), rootfs), filepath.Join(d.mountPoint(id), idFile)
	err := os.Mkdir(root, 0o555)
	if errors.Is(err, fs.ErrExist) {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = nil
	}
	if err == nil {
		err = d.own(root)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(id), 0o600)
}

// own gives a directory to its owner, whatever the umask. On a device that somebody else
// wrote it may be a link, which is not followed.
func (d *Driver) own(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o555), f.Chown(d.owner.uid, d.owner.gid), f.Close())
}

// Put lets go of a layer, and unmounts it if nobody else has it. That it is not mounted
// is no error. One that was removed while it was mounted goes with its last Put.
func (d *Driver) Put(id string) error {
	defer d.layers.Lock(id)()
	if err := d.put(id); err != nil {
		return fmt.Errorf("put layer %s: %w", id, err)
	}
	return nil
}

func (d *Driver) put(id string) error {
	mounted, err := d.isMounted(id)
	switch {
	case err != nil:
		return err
	case !mounted && !d.Exists(id):
		return deviceset.ErrNotFound
	case !mounted:
		return d.letGo(id)
	}
	count, err := d.count(id)
	if err != nil {
		return err
	}
	if count > 1 {
		return d.setCount(id, count-1)
	}
	return d.letGo(id)
}

// letGo unmounts a layer, if it is mounted, and forgets that it was got.
func (d *Driver) letGo(id string) error {
	mounted, err := d.isMounted(id)
	if err == nil && mounted {
		err = d.unmount(id)
	}
	if err != nil {
		return err
	}
	_ = os.Remove(d.mountPoint(id)) // and with it what other mount namespaces have inherited there
	return d.forgetCount(id)
}

func (d *Driver) unmount(id string) error {
	path := d.mountPoint(id)
	err := d.UnmountDevice(id, path)
	switch {
	case errors.Is(err, deviceset.ErrNotFound) && d.isCounted(id):
		// It was removed while it was mounted.
		return filesystem.Unmount(context.Background(), path, filesystem.UnmountOptions{})
	case errors.Is(err, deviceset.ErrBusy):
		// Another mount namespace has inherited the mount. Its copy goes with the
		// directory (fs/namei.c, vfs_rmdir), which one that is mounted here keeps.
		_ = os.Remove(path)
		return d.UnmountDevice(id, path)
	}
	return err
}

// isMounted reports whether something is mounted where a layer is to be.
func (d *Driver) isMounted(id string) (bool, error) {
	if !isName(id) {
		return false, nil
	}
	return deviceset.Mounted(d.mountPoint(id))
}

// makeMountPoint makes a directory to mount a layer at.
func (d *Driver) makeMountPoint(id string) error {
	err := d.makeDir(d.mounts())
	if err == nil {
		err = d.unshareMounts()
	}
	if err == nil {
		err = d.makeDir(d.mountPoint(id))
	}
	return err
}

func (d *Driver) makeDir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Lchown(path, d.owner.uid, d.owner.gid)
}

// unshareMounts makes mnt a mount of its own, so that what is mounted below it is not
// passed on to other mount namespaces, where it would keep its device open.
func (d *Driver) unshareMounts() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	mounted, err := deviceset.Mounted(d.mounts())
	if err != nil {
		return err
	}
	if !mounted {
		if err := unix.Mount(d.mounts(), d.mounts(), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", d.mounts(), err)
		}
	}
	if err := unix.Mount("", d.mounts(), "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", d.mounts(), err)
	}
	return nil
}

// shareMounts undoes unshareMounts, unless layers are mounted.
func (d *Driver) shareMounts() error {
	mounted, err := deviceset.Mounted(d.mounts())
	if err != nil || !mounted {
		return err
	}
	err = unix.Unmount(d.mounts(), unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}
