package graphdriver

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/namelock"
)

// A Driver is a device set whose devices are layers. All its methods may be called by
// several goroutines at once.
//
// Status is that of the layers' world, ordered pairs for people; the device set's own
// is DeviceSet.Status.
type Driver struct {
	*deviceset.DeviceSet

	home  string
	owner owner

	layers namelock.Locks // one at a time makes, gets, puts or removes a layer
	mu     sync.Mutex     // one at a time makes mnt a mount
}

// owner is whom what is made belongs to.
type owner struct{ uid, gid int }

// MountOpts say how a layer is mounted.
type MountOpts = deviceset.MountOpts

// An IDMap is a range of user or group ids inside a container and outside.
type IDMap = deviceset.IDMap

// CreateOpts are what a layer may have of its own; nil is nothing.
type CreateOpts struct {
	// StorageOpt has the keys size, fs, mkfsarg, readonly and label.KEY: see
	// docs/options.md.
	StorageOpt map[string]string
}

// Init opens the pool whose state is under home on this machine, and makes one if
// there is none. Options are those of docs/options.md, errors those of
// deviceset.NewDeviceSet. An Init that failed leaves nothing behind.
func Init(home string, options []string, uidMaps, gidMaps []IDMap) (*Driver, error) {
	set, err := deviceset.NewDeviceSet(home, true, options, uidMaps, gidMaps)
	if err != nil {
		return nil, err
	}
	return New(set, home, uidMaps, gidMaps)
}

// New gives a device set whose root is home to a driver, which shuts it down if it
// cannot use it.
func New(set *deviceset.DeviceSet, home string, uidMaps, gidMaps []IDMap) (*Driver, error) {
	uid, uidErr := deviceset.RootOf(uidMaps)
	gid, gidErr := deviceset.RootOf(gidMaps)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, errors.Join(err, set.Shutdown(home))
	}
	return &Driver{DeviceSet: set, home: home, owner: owner{uid, gid}}, nil
}

// String returns the driver's name.
func (d *Driver) String() string { return "devicemapper" }

// Create makes a layer: a snapshot of its parent, or of the base device if parent is
// empty. A layer that was made by the same call is no error; one that differs is
// deviceset.ErrExists. The name of one that was removed while it was mounted is
// deviceset.ErrBusy until it is put for the last time.
func (d *Driver) Create(id, parent string, opts *CreateOpts) error {
	var storageOpt map[string]string
	if opts != nil {
		storageOpt = opts.StorageOpt
	}
	defer d.layers.Lock(id)()
	if mounted, err := d.isMounted(id); err != nil || mounted && !d.Exists(id) {
		return fmt.Errorf("create layer %s: %w", id, cmp.Or(err, deviceset.ErrBusy))
	}
	return d.AddDevice(id, parent, storageOpt)
}

// CreateReadWrite makes a layer that is to be written to, such as a container's. Here
// that is what Create makes, too.
func (d *Driver) CreateReadWrite(id, parent string, opts *CreateOpts) error {
	return d.Create(id, parent, opts)
}

// CreateFromTemplate makes a layer with the content of another, whose parent it
// shares: a snapshot has that content.
func (d *Driver) CreateFromTemplate(id, template, _ string, opts *CreateOpts, _ bool) error {
	return d.Create(id, template, opts)
}

// Exists reports whether there is a layer of that name.
func (d *Driver) Exists(id string) bool { return id != "" && d.HasDevice(id) }

// ListLayers returns the names of all layers, sorted.
func (d *Driver) ListLayers() ([]string, error) { return d.List(), nil }

// Remove deletes a layer; that there is none is no error. Layers that have it as
// their parent stay. One that is mounted is deleted when it is put for the last time,
// if dm.use_deferred_deletion says so, and else deviceset.ErrBusy.
func (d *Driver) Remove(id string) error {
	defer d.layers.Lock(id)()
	if err := d.DeleteDevice(id, false); err != nil && !errors.Is(err, deviceset.ErrNotFound) {
		return err
	}
	mounted, err := d.isMounted(id)
	if err != nil || mounted {
		return err
	}
	return d.letGo(id)
}

// Metadata describes a layer: DeviceId, DeviceSize in bytes, and DeviceName.
func (d *Driver) Metadata(id string) (map[string]string, error) {
	if id == "" {
		return nil, fmt.Errorf("layer %q: %w", id, deviceset.ErrNotFound)
	}
	device, err := d.Device(id)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"DeviceId":   strconv.FormatUint(uint64(device.ID), 10),
		"DeviceSize": strconv.FormatInt(device.Size, 10),
		"DeviceName": d.DMName(device.ID),
	}, nil
}

// Cleanup shuts the device set down. Layers that are mounted stay so.
func (d *Driver) Cleanup() error {
	return errors.Join(d.Shutdown(d.home), d.shareMounts())
}

// AdditionalImageStores returns none.
func (d *Driver) AdditionalImageStores() []string { return nil }

func (d *Driver) mounts() string { return filepath.Join(d.home, "mnt") }

// isName reports whether id can be a layer's name, and so part of a path.
func isName(id string) bool { return deviceset.CheckName(id) == nil }

func (d *Driver) mountPoint(id string) string { return filepath.Join(d.mounts(), id) }
