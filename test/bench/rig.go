package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
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
	loops  []*loop.Device
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
	meta, err := r.disk("metadata", metaSize)
	if err != nil {
		return r, err
	}
	data, err := r.disk("data", dataSize)
	if err != nil {
		return r, err
	}
	return r, r.makePool(meta, data)
}

func (r *rig) makePool(meta, data dm.DevNo) (err error) {
	table := dm.ThinPool{Metadata: meta, Data: data, BlockSize: blockSize}
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

func (r *rig) disk(name string, size dm.Sectors) (dm.DevNo, error) {
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return 0, err
	}
	if err := os.Truncate(path, size.Bytes()); err != nil {
		return 0, err
	}
	d, err := loop.Attach(path, loop.Options{})
	if err != nil {
		return 0, err
	}
	r.later(func() error { return errors.Join(d.Detach(), d.Close()) })
	r.loops = append(r.loops, d)
	status, err := d.Status()
	return status.Dev, err
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

// flushes counts what has reached the disks (Documentation/block/stat.rst: the
// 16th field).
func (r *rig) flushes() (total int, err error) {
	for _, l := range r.loops {
		stat, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(l.Name()), "stat"))
		if err != nil {
			return 0, err
		}
		var flushes int
		if fields := strings.Fields(string(stat)); len(fields) > 15 {
			if _, err := fmt.Sscan(fields[15], &flushes); err != nil {
				return 0, err
			}
		}
		total += flushes
	}
	return total, nil
}
