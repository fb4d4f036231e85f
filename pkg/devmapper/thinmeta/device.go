package thinmeta

import (
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A Device is what the pool keeps of a thin device, beside its mappings
// (drivers/md/dm-thin-metadata.c: struct disk_device_details). Its birth, which
// is TransactionID and Created, stays with it for life.
type Device struct {
	ID            devmapper.DeviceID
	Mapped        Blocks // how many of its blocks have data
	TransactionID uint64 // the pool's when the device was made
	Created       uint32 // Superblock.Time when the device was made
	Snapshotted   uint32 // Superblock.Time when it last became a snapshot or the origin of one
}

// Devices returns all devices of the pool, by rising id.
func (m *Metadata) Devices() ([]Device, error) {
	devices, err := settled(m, (*moment).devices)
	return devices, m.failed(err, "list devices")
}

// Device returns one device of the pool.
func (m *Metadata) Device(id devmapper.DeviceID) (Device, error) {
	d, err := settled(m, func(now *moment) (rooted, error) { return now.device(id) })
	return d.Device, m.failed(err, "device %d", id)
}

// devices reads the tree of details, and the tree of roots to see that both have
// the same devices.
func (now *moment) devices() (devices []Device, err error) {
	err = now.detailsTree().each(now.super.details, func(id uint64, d Device) error {
		d.ID = devmapper.DeviceID(id)
		devices = append(devices, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	mapped := 0
	err = now.rootTree().each(now.super.mappings, func(id, _ uint64) error {
		if mapped == len(devices) || uint64(devices[mapped].ID) != id {
			return corrupt(now.super.mappings.to, "device %d has mappings and no details, or an earlier one the reverse", id)
		}
		mapped++
		return nil
	})
	if err == nil && mapped < len(devices) {
		err = corrupt(now.super.details.to, "device %d has details and no mappings", devices[mapped].ID)
	}
	return devices, err
}

// A rooted device has the tree of its mappings.
type rooted struct {
	Device
	root link
	path []uint64 // the nodes that lead to the root
}

// sameTree reports whether two sightings of a device found the same mappings. A
// snapshot taken of it in between does no harm.
func (d rooted) sameTree(later rooted) bool {
	d.Snapshotted = later.Snapshotted
	return d.Device == later.Device && d.root.to == later.root.to
}

func (now *moment) device(id devmapper.DeviceID) (rooted, error) {
	details, found, err := now.detailsTree().lookup(now.super.details, uint64(id))
	if err != nil {
		return rooted{}, err
	}
	p, path, hasRoot, err := now.rootTree().floor(now.super.mappings, uint64(id))
	if err != nil {
		return rooted{}, err
	}
	hasRoot = hasRoot && p.lo == uint64(id)
	if found != hasRoot {
		return rooted{}, corrupt(now.super.mappings.to, "device %d is in one of two trees", id)
	}
	if !found {
		return rooted{}, fmt.Errorf("%w: %d", ErrNoSuchDevice, id)
	}
	details.ID = id
	return rooted{details, link{p.root.to, p.value}, path}, nil
}

const maxID = uint64(devmapper.MaxDeviceID)

func (now *moment) detailsTree() tree[Device] {
	return tree[Device]{visit: &now.visit, valueSize: 24, limit: maxID + 1, decode: func(b []byte) (Device, error) {
		return Device{
			Mapped:        Blocks(le.Uint64(b)),
			TransactionID: le.Uint64(b[8:]),
			Created:       le.Uint32(b[16:]),
			Snapshotted:   le.Uint32(b[20:]),
		}, nil
	}}
}

func (now *moment) rootTree() tree[uint64] {
	return tree[uint64]{visit: &now.visit, valueSize: 8, limit: maxID + 1, decode: decodeBlock}
}
