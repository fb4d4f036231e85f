package deviceset

import (
	"maps"
	"slices"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// A Device describes a device.
type Device struct {
	Name          string
	ID            dm.DeviceID
	Size          int64  // bytes
	Parent        string // what it is a copy of; empty for a blank device; it need not exist any more
	FS            string // "ext4", "xfs" or "none"
	Formatting    bool   // mkfs has begun, and not ended that we know of
	Created       time.Time
	ReadOnly      bool
	Adopted       bool              // it is never formatted
	Labels        map[string]string // to be read only
	TransactionID uint64            // of the operation that made it
	Err           error             // why it may not be used
}

// HasDevice reports whether there is a device of that name. One whose deletion is
// pending has none. The empty name is that of the base device.
func (s *DeviceSet) HasDevice(hash string) bool {
	_, err := s.lookup(s.named(hash))
	return err == nil
}

// List returns the names of all devices, sorted, without the base devices.
func (s *DeviceSet) List() (names []string) {
	s.store.view(func(c *catalog) { names = slices.Clone(c.names) })
	return names
}

// Device describes a device.
func (s *DeviceSet) Device(hash string) (Device, error) {
	d, err := s.lookup(s.named(hash))
	if err != nil {
		return Device{}, failed("device", hash, err)
	}
	found := s.describe(d)
	found.Labels = maps.Clone(d.Labels)
	return found, nil
}

// DMName returns the name that the block device of a thin device has while it is active.
func (s *DeviceSet) DMName(id dm.DeviceID) string { return s.pool.dmName(thinSuffix(id)) }

// Devices describes at most limit devices in the order of their names, from the
// first behind the cursor on: one deleted or made between two calls moves no other.
// The cursor to go on with is the name of the last; it is empty at the end.
func (s *DeviceSet) Devices(after string, limit int) (devices []Device, next string) {
	var page []device
	s.store.view(func(c *catalog) {
		at, found := slices.BinarySearch(c.names, after)
		if found {
			at++
		}
		end := min(at+max(limit, 0), len(c.names))
		page = make([]device, 0, end-at)
		for _, name := range c.names[at:end] {
			page = append(page, *c.devices[name])
		}
		if end < len(c.names) && len(page) > 0 {
			next = page[len(page)-1].Name
		}
	})
	bad := s.bad()
	devices = make([]Device, len(page))
	for i := range page {
		devices[i] = s.present(&page[i], bad)
	}
	return devices, next
}

func (s *DeviceSet) describe(d device) Device { return s.present(&d, s.bad()) }

func (s *DeviceSet) present(d *device, bad map[string]error) Device {
	parent := d.Parent
	if isBase(parent) {
		parent = ""
	}
	return Device{
		Name: d.Name, ID: d.ID, Size: d.Size, Parent: parent, FS: d.FS, Formatting: d.Formatting, Created: time.Unix(d.Created, 0),
		ReadOnly: d.ReadOnly, Adopted: d.Adopted, Labels: d.Labels, TransactionID: d.Op,
		Err: bad[d.Name],
	}
}

// DeviceUsage is how much of the pool a device takes, in bytes.
type DeviceUsage struct {
	Exclusive int64 // what its deletion frees
	Shared    int64 // what other devices have too
}

// DeviceUsage reads how much of the pool a device takes, as of now. It reads the
// device's own part of the metadata, and needs the device to stand still: of one
// that is being written to it may be ErrUnavailable.
func (s *DeviceSet) DeviceUsage(hash string) (DeviceUsage, error) {
	var u DeviceUsage
	err := s.during("usage of device", hash, func() (err error) {
		u, err = s.deviceUsage(s.named(hash))
		return err
	})
	return u, err
}

func (s *DeviceSet) deviceUsage(name string) (DeviceUsage, error) {
	if err := s.up(); err != nil {
		return DeviceUsage{}, err
	}
	d, err := s.usable(name)
	if err != nil {
		return DeviceUsage{}, err
	}
	exclusive, err := s.exclusive(d.ID)
	if err != nil {
		return DeviceUsage{}, err
	}
	mapped, _, err := s.mapping(d)
	if err != nil {
		return DeviceUsage{}, err
	}
	own := thinmeta.Sum(exclusive).Sectors(s.pool.blockSize)
	return DeviceUsage{Exclusive: own.Bytes(), Shared: max(mapped.Bytes()-own.Bytes(), 0)}, nil
}
