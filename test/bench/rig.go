package main

import (
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

const (
	blockSize = dm.MinBlockSize
	dataSize  = dm.Sectors(1 << 30 / dm.SectorSize)
	metaSize  = dm.Sectors(64 << 20 / dm.SectorSize)
	thinSize  = dm.Sectors(256 << 20 / dm.SectorSize)
)

// A rig is a pool with an active thin of id 0, and whatever an operation makes.
type rig struct {
	*ground
	pool   dm.Pool
	dev    dm.DevNo // of the pool
	volume dm.Device
}

func newRig() (*rig, error) {
	g, err := newGround(metaSize, dataSize)
	r := &rig{ground: g}
	if err == nil {
		err = r.makePool()
	}
	return r, g.closeAfter(err)
}

func (r *rig) makePool() (err error) {
	table := dm.ThinPool{Metadata: r.disks[0].Dev(), Data: r.disks[1].Dev(), BlockSize: blockSize}
	if r.pool.Device, err = r.activate("bench-pool", dm.Whole(dataSize, table)); err != nil {
		return err
	}
	info, err := r.pool.Info()
	if err != nil {
		return err
	}
	r.dev = info.Dev
	if err := r.pool.CreateThin(0); err != nil {
		return err
	}
	r.volume, err = r.activate("bench-volume", r.thin(0))
	return err
}

func (r *rig) thin(id dm.DeviceID) dm.Table {
	return dm.Whole(thinSize, dm.Thin{Pool: r.dev, ID: id})
}
