package main

import (
	"errors"
	"os"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// A ground is what a pool is made on: the kernel, and disks over files in memory.
type ground struct {
	kernel *dm.Control
	dir    string
	disks  []dmtest.Disk
	undo   []func() error
}

func newGround(sizes ...dm.Sectors) (g *ground, err error) {
	g = &ground{}
	if g.kernel, err = dm.Open(); err != nil {
		return g, err
	}
	g.later(g.kernel.Close)
	if g.dir, err = os.MkdirTemp("/dev/shm", "bench-"); err != nil {
		return g, g.closeAfter(err)
	}
	g.later(func() error { return os.RemoveAll(g.dir) })
	machine := dmtest.NewMachine(g.kernel, g.dir)
	for _, size := range sizes {
		disk, err := machine.NewDisk(size)
		if err != nil {
			return g, g.closeAfter(err)
		}
		g.later(disk.Close)
		g.disks = append(g.disks, disk)
	}
	return g, nil
}

func (g *ground) activate(name string, table dm.Table) (dm.Device, error) {
	d, err := dm.Activate(g.kernel, name, "", table)
	if err == nil {
		g.later(d.Remove)
	}
	return d, err
}

func (g *ground) later(undo func() error) { g.undo = append(g.undo, undo) }

func (g *ground) close() (err error) {
	for i := len(g.undo) - 1; i >= 0; i-- {
		err = errors.Join(err, g.undo[i]())
	}
	g.undo = nil
	return err
}

// closeAfter closes what was made for something that failed.
func (g *ground) closeAfter(err error) error {
	if err != nil {
		err = errors.Join(err, g.close())
	}
	return err
}

// flushes counts what has reached the disks.
func (g *ground) flushes() (total int, err error) {
	for _, d := range g.disks {
		n, err := d.Flushes()
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
