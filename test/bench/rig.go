package main

import (
	"errors"
	"os"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

const (
	blockSize = dm.MinBlockSize
	dataSize  = dm.Sectors(1 << 30 / dm.SectorSize)
	metaSize  = dm.Sectors(64 << 20 / dm.SectorSize)
	thinSize  = dm.Sectors(256 << 20 / dm.SectorSize)
)

// A rig is a pool with an active thin of id 0, and whatever an operation makes.
type rig struct {
	kernel *dm.Control
	dir    string
	disks  []dmtest.Disk
	pool   dm.Pool
	dev    dm.DevNo // of the pool
	volume dm.Device
	undo   []func() error
}

func newRig() (r *rig, err error) {
	r = &rig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.kernel, err = dm.Open(); err != nil {
		return r, err
	}
	r.later(r.kernel.Close)
	if r.dir, err = os.MkdirTemp("/dev/shm", "bench-"); err != nil {
		return r, err
	}
	r.later(func() error { return os.RemoveAll(r.dir) })
	machine := dmtest.NewMachine(r.kernel, r.dir)
	for _, size := range []dm.Sectors{metaSize, dataSize} {
		disk, err := machine.NewDisk(size)
		if err != nil {
			return r, err
		}
		r.later(disk.Close)
		r.disks = append(r.disks, disk)
	}
	return r, r.makePool()
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

func (r *rig) activate(name string, table dm.Table) (dm.Device, error) {
	d, err := dm.Activate(r.kernel, name, "", table)
	if err == nil {
		r.later(d.Remove)
	}
	return d, err
}

func (r *rig) later(undo func() error) { r.undo = append(r.undo, undo) }

func (r *rig) close() (err error) {
	for i := len(r.undo) - 1; i >= 0; i-- {
		err = errors.Join(err, r.undo[i]())
	}
	r.undo = nil
	return err
}

func (r *rig) thin(id dm.DeviceID) dm.Table {
	return dm.Whole(thinSize, dm.Thin{Pool: r.dev, ID: id})
}

// flushes counts what has reached the disks.
func (r *rig) flushes() (total int, err error) {
	for _, d := range r.disks {
		n, err := d.Flushes()
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
