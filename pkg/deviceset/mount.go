package deviceset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// MountOpts say how a device is mounted.
type MountOpts struct {
	// MountLabel is an SELinux context for all files.
	MountLabel string
	// Options are as for mount -o. They come after those of dm.mountopt, and the
	// kernel takes the last of two that contradict each other.
	Options []string
}

// MountDevice activates a device and mounts its file system at a path, which must
// exist. What is needed before happens: a check of an ext4 that asks for one, and
// growth, where the device is larger than the file system.
//
// If the device is mounted there already, with the same ability to write, that is
// no error; if anything else is, it is ErrForeign. A device may be mounted at
// several paths. After an error the device is as active as before.
//
// A read-only device whose file system has a log to replay, such as a copy of an xfs
// that was mounted, is EROFS: a copy of it is mounted instead.
func (s *DeviceSet) MountDevice(hash, path string, o MountOpts) error {
	return s.during("mount device", hash, func() error {
		return s.alone(s.named(hash), func(d device) error { return s.mountDevice(d, path, o) })
	})
}

func (s *DeviceSet) mountDevice(d device, path string, o MountOpts) error {
	options := slices.Concat(s.config.MountOptions, o.Options)
	readOnly := d.ReadOnly || endsReadOnly(options)
	if there, err := s.isMountedAt(d, path, readOnly); err != nil {
		return err
	} else if there {
		return s.growMounted(d, path, readOnly)
	}
	active, err := s.isActive(d.Name)
	if err != nil {
		return err
	}
	info, err := s.pool.activate(d.ID, d.Size, d.ReadOnly)
	if err == nil {
		err = s.mountActive(d, info, path, filesystem.MountOptions{
			Options: options, Label: o.MountLabel, ReadOnly: readOnly, XFSNoSpaceRetries: s.config.XFSNoSpaceRetries,
		})
	}
	if err != nil && !active {
		err = errors.Join(err, s.deactivate(d))
	}
	return err
}

// endsReadOnly reports whether the last of the options that say so is ro. An option
// may be a list with commas.
func endsReadOnly(options []string) (readOnly bool) {
	for _, word := range strings.Split(strings.Join(options, ","), ",") {
		switch word {
		case "ro":
			readOnly = true
		case "rw":
			readOnly = false
		}
	}
	return readOnly
}

// isMountedAt reports whether the device is mounted at a path already, and refuses
// what else may be there.
func (s *DeviceSet) isMountedAt(d device, path string, readOnly bool) (bool, error) {
	there, mounted, err := s.machine.MountedAt(path)
	if err != nil || !mounted {
		return false, err
	}
	info, err := s.pool.thin(d.ID).Info()
	switch {
	case err != nil && !errors.Is(err, unix.ENXIO):
		return false, err
	case err != nil || there.Dev != info.Dev:
		return false, fmt.Errorf("%w: device %s is mounted at %s", ErrForeign, there.Dev, path)
	case there.ReadOnly != readOnly:
		return false, fmt.Errorf("%w: it is mounted at %s, read-only %v, want %v", ErrExists, path, there.ReadOnly, readOnly)
	}
	return true, nil
}

func (s *DeviceSet) mountActive(d device, i dm.Info, path string, o filesystem.MountOptions) error {
	if d.Formatting {
		return fmt.Errorf("%w: it is being formatted", ErrNotFormatted)
	}
	found, err := s.machine.Probe(i)
	if errors.Is(err, filesystem.ErrBlank) {
		return fmt.Errorf("%w: %w", ErrNotFormatted, err)
	}
	if err != nil {
		return err
	}
	t, err := filesystem.ParseType(string(found.Type))
	if err != nil {
		return err
	}
	ctx := context.Background()
	if found.Dirty && !d.ReadOnly {
		if err := s.machine.Check(ctx, i, t); err != nil {
			return err
		}
	}
	if err := s.machine.Mount(i, path, t, o); err != nil {
		return err
	}
	if err := s.growIfSmaller(d, i, path, found, o.ReadOnly); err != nil {
		return errors.Join(err, s.machine.Unmount(ctx, path, false))
	}
	return nil
}

// growMounted grows a file system that was mounted by a process that died before it came
// to that.
func (s *DeviceSet) growMounted(d device, path string, readOnly bool) error {
	i, err := s.pool.thin(d.ID).Info()
	if err != nil {
		return err
	}
	found, err := s.machine.Probe(i)
	if err != nil {
		return err
	}
	return s.growIfSmaller(d, i, path, found, readOnly)
}

// growIfSmaller makes a mounted file system as large as its device, if it is worth that.
func (s *DeviceSet) growIfSmaller(d device, i dm.Info, path string, found filesystem.Info, readOnly bool) error {
	if readOnly || d.Size-found.Size < smallestGrowth {
		return nil
	}
	return s.machine.GrowFS(context.Background(), i, path, found.Type)
}

// smallestGrowth is what a file system may leave of its device without being worth
// a tool's run: xfs leaves less than an allocation group, ext4 less than a group,
// where the rest is too small for one.
const smallestGrowth = 16 * mib

// UnmountDevice unmounts a device from a path, and deactivates it if it is mounted
// nowhere else. That it is not mounted there is no error; that something else is, is
// ErrForeign. The path itself stays.
//
// A mount that another mount namespace has inherited keeps the device active; it
// goes when that one ends.
func (s *DeviceSet) UnmountDevice(hash, mountPath string) error {
	return s.during("unmount device", hash, func() error { return s.unmountDevice(s.named(hash), mountPath) })
}

func (s *DeviceSet) unmountDevice(name, path string) error {
	unlock := s.locks.Lock(name)
	defer unlock()
	if err := s.ended(); err != nil {
		return err
	}
	d, err := s.lookup(name)
	if err != nil {
		return err
	}
	info, err := s.pool.thin(d.ID).Info()
	active := err == nil
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return err
	}
	there, mounted, err := s.machine.MountedAt(path)
	switch {
	case err != nil:
		return err
	case mounted && (!active || there.Dev != info.Dev):
		return fmt.Errorf("%w: device %s is mounted at %s", ErrForeign, there.Dev, path)
	case mounted:
		if err := s.machine.Unmount(context.Background(), path, s.config.LazyUnmount); err != nil {
			return err
		}
	}
	if !active {
		return nil
	}
	return s.drop(d, info)
}

// drop deactivates a device that is mounted nowhere.
func (s *DeviceSet) drop(d device, i dm.Info) error {
	points, err := s.machine.MountPoints(i.Dev)
	if err != nil || len(points) > 0 {
		return err
	}
	thin := s.pool.thin(d.ID)
	err = ignoring(thin.Remove(), unix.ENXIO)
	if isBusy(err) && s.config.DeferredRemoval {
		return ignoring(thin.RemoveDeferred(), unix.ENXIO)
	}
	if isBusy(err) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// Mounted reports whether something is mounted at a path, bind mounts of the same
// file system included. A path that does not exist is not a mount point.
func Mounted(mountpoint string) (bool, error) {
	_, mounted, err := filesystem.MountedAt(mountpoint)
	return mounted, err
}

// ProbeFsType tells which file system is on a device: "ext4" (which stands for ext2
// and ext3 too), "xfs" or "btrfs"; "none" if it is blank. Anything else, or two at
// once, is an error: what cannot be named is never taken for empty.
func ProbeFsType(device string) (string, error) {
	found, err := filesystem.ProbeDevice(device)
	if errors.Is(err, filesystem.ErrBlank) {
		return noFS, nil
	}
	if err != nil {
		return "", err
	}
	return string(found.Type), nil
}
