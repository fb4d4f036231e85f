package deviceset_test

import (
	"errors"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// A ground is a machine on which stories are told: the simulated one, or this one.
type ground interface {
	// start starts a process, whose steps fail by a plan; kill ends all of them.
	start(*dmfault.Plan) actor
	kill()
	openSet(deviceset.Machine) (*deviceset.DeviceSet, error)

	kernel() dm.Kernel
	openPod(dm.Info) (podFile, error)
	poolThins() ([]thinmeta.Device, error) // of the pool, as of its last commit
	growDisks(more int64) error            // to so much more than they had first
	mountPoint() string
}

// An actor is a machine as one process has it.
type actor interface {
	deviceset.Machine
	Break(*dmfault.Plan)
	Dead() bool
}

// A podFile is a device that somebody else has open.
type podFile interface {
	ReadAt([]byte, int64) (int, error)
	WriteAt([]byte, int64) (int, error)
	Sync() error
	Close() error
}

// simulatedGround is the simulated machine.
type simulatedGround struct{ w *simulated.World }

func (g simulatedGround) start(plan *dmfault.Plan) actor { return g.w.Process(plan) }
func (g simulatedGround) kill()                          { g.w.Kill() }
func (g simulatedGround) kernel() dm.Kernel              { return g.w.Kernel() }
func (g simulatedGround) mountPoint() string             { return "/mnt" }

func (g simulatedGround) openSet(m deviceset.Machine) (*deviceset.DeviceSet, error) {
	return deviceset.OpenQuiet(m, root, label, poolOptions...)
}

func (g simulatedGround) openPod(i dm.Info) (podFile, error) {
	f, err := g.w.Kernel().Open(i.Dev)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (g simulatedGround) poolThins() ([]thinmeta.Device, error) {
	m, err := g.w.DiskAt(metaPath).Metadata()
	if err != nil {
		return nil, err
	}
	devices, err := m.Devices()
	return devices, errors.Join(err, m.Close())
}

func (g simulatedGround) growDisks(more int64) error {
	g.w.DiskAt(dataPath).Grow(dm.SectorsIn(dataSize + more))
	g.w.DiskAt(metaPath).Grow(dm.SectorsIn(metaSize + more))
	return nil
}
