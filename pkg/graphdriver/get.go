package graphdriver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// Get mounts a layer, if it is not mounted already, and returns where its files are.
// Each Get is answered by a Put. A layer that is mounted for writing serves who only
// reads; one that is mounted read-only is deviceset.ErrExists to who wants to write.
func (d *Driver) Get(id string, o MountOpts) (dir string, err error) {
	if !isName(id) || !d.Exists(id) {
		return "", fmt.Errorf("get layer %s: %w", id, deviceset.ErrNotFound)
	}
	defer d.lock(id)()
	if err := d.get(id, o); err != nil {
		return "", fmt.Errorf("get layer %s: %w", id, err)
	}
	return filepath.Join(d.mountPoint(id), rootfs), nil
}

const (
	rootfs = "rootfs" // the layer's files
	idFile = "id"     // whose they are, for who finds the device without a journal
)

func (d *Driver) get(id string, o MountOpts) error {
	mounted, err := d.mountedMode(id)
	if err != nil {
		return err
	}
	count := d.count(id, mounted != "")
	if mounted == "ro" && !readOnly(o) {
		return fmt.Errorf("%w: it is mounted read-only, for %d", deviceset.ErrExists, count)
	}
	if err := d.makeMountPoint(id); err != nil {
		return err
	}
	if err := d.setCount(id, count+1); err != nil {
		return err
	}
	if mounted == "" {
		err = d.mount(id, o)
	}
	if err != nil {
		return errors.Join(err, d.setCount(id, count))
	}
	return nil
}

// mount mounts a layer. One that has no rootfs yet gets it before it is mounted
// read-only.
func (d *Driver) mount(id string, o MountOpts) error {
	path := d.mountPoint(id)
	if err := d.MountDevice(id, path, o); err != nil {
		return err
	}
	err := d.fill(id)
	if errors.Is(err, unix.EROFS) {
		writable := o
		writable.Options = append(slices.Clone(o.Options), "rw")
		err = errors.Join(d.UnmountDevice(id, path), d.MountDevice(id, path, writable))
		if err == nil {
			err = d.fill(id)
		}
		if err == nil {
			err = d.UnmountDevice(id, path)
		}
		if err == nil {
			err = d.MountDevice(id, path, o)
		}
	}
	if err != nil {
		return errors.Join(err, d.UnmountDevice(id, path))
	}
	return nil
}

// fill makes what each layer has beside its files.
func (d *Driver) fill(id string) error {
	root := filepath.Join(d.mountPoint(id), rootfs)
	err := os.Mkdir(root, 0o555)
	if err == nil {
		err = os.Chown(root, d.owner.uid, d.owner.gid)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	name := filepath.Join(d.mountPoint(id), idFile)
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, []byte(id), 0o600)
}

// Put lets go of a layer, and unmounts it if nobody else has it. That it is not mounted
// is no error.
func (d *Driver) Put(id string) error {
	if !isName(id) {
		return fmt.Errorf("put layer %s: %w", id, deviceset.ErrNotFound)
	}
	defer d.lock(id)()
	if err := d.put(id); err != nil {
		return fmt.Errorf("put layer %s: %w", id, err)
	}
	return nil
}

func (d *Driver) put(id string) error {
	mounted, err := d.mountedMode(id)
	if err != nil {
		return err
	}
	count := d.count(id, mounted != "")
	if count > 1 {
		return d.setCount(id, count-1)
	}
	err = d.UnmountDevice(id, d.mountPoint(id))
	if errors.Is(err, deviceset.ErrNotFound) && mounted == "" {
		return err
	}
	if errors.Is(err, deviceset.ErrNotFound) { // it was removed while it was mounted
		if err = unix.Unmount(d.mountPoint(id), unix.UMOUNT_NOFOLLOW); err == nil {
			_ = os.Remove(d.mountPoint(id))
		}
	}
	if err != nil {
		return err
	}
	return d.forgetCount(id)
}

// mountedMode returns "ro" or "rw" if the layer is mounted.
func (d *Driver) mountedMode(id string) (string, error) {
	path := d.mountPoint(id)
	mounted, err := deviceset.Mounted(path)
	if err != nil || !mounted {
		return "", err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return "ro", nil
	}
	return "rw", nil
}

// readOnly reports whether the last option that says so is ro.
func readOnly(o MountOpts) (ro bool) {
	for _, word := range strings.Split(strings.Join(o.Options, ","), ",") {
		if word == "ro" || word == "rw" {
			ro = word == "ro"
		}
	}
	return ro
}

// makeMountPoint makes a directory to mount a layer at. What is mounted below mnt is
// this mount namespace's alone: another one that inherited it would keep the device
// open.
func (d *Driver) makeMountPoint(id string) error {
	for _, dir := range []string{d.mounts(), d.mountPoint(id)} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Chown(dir, d.owner.uid, d.owner.gid); err != nil {
			return err
		}
		if dir == d.mounts() {
			if err := d.unshareMounts(); err != nil {
				return err
			}
		}
	}
	return nil
}

// unshareMounts makes mnt a mount of its own that no other namespace follows.
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
