package dmsim_test

import (
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

func TestStories(t *testing.T) {
	dmtest.Run(t, func(testing.TB) dmtest.Machine { return machine{dmsim.New()} })
}

// machine is the simulated kernel as a story sees it.
type machine struct{ sim *dmsim.Kernel }

func (m machine) Kernel() dm.Watcher { return m.sim }

func (m machine) NewDisk(size dm.Sectors) (dmtest.Disk, error) {
	return disk{m.sim.NewDisk(size), m.sim}, nil
}

func (m machine) Open(i dm.Info) (dmtest.File, error) { return m.sim.Open(i.Dev) }

func (m machine) OpenExclusive(i dm.Info) (dmtest.File, error) { return m.sim.OpenExclusive(i.Dev) }

// PowerCut keeps what was written, flushed or not, as the stories expect.
func (m machine) PowerCut() error {
	m.sim.PowerCut(func(*dmsim.Disk, int64) bool { return true })
	return nil
}

func (m machine) Leftovers() (names []string, err error) {
	devices, err := dm.List(m.sim, "", "")
	for _, d := range devices {
		names = append(names, "device "+d.Name)
	}
	return names, err
}

type disk struct {
	*dmsim.Disk
	kernel *dmsim.Kernel
}

func (d disk) Open() (dmtest.File, error) { return d.kernel.Open(d.Dev()) }
func (d disk) Grow(size dm.Sectors) error { d.Disk.Grow(size); return nil }
func (d disk) Flushes() (int, error)      { return d.Disk.Flushes(), nil }
func (d disk) Close() error               { return nil }
