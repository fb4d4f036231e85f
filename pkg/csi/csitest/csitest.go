// Package csitest is a csi.Driver on a simulated machine, for tests of what needs no
// kernel.
package csitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A Host is what a simulated machine has beside a Machine.
type Host struct{ *simulated.Machine }

// Unmount unmounts a path.
func (h Host) Unmount(ctx context.Context, target string) error {
	return h.Machine.Unmount(ctx, target, false)
}

// MountedAt tells what is mounted at a path.
func (h Host) MountedAt(path string) (csi.Mounted, bool, error) {
	m, node, ok := h.BoundAt(path)
	return csi.Mounted{Dev: m.Dev, ReadOnly: m.ReadOnly, Node: node}, ok, nil
}

// MountPoints returns where a device is mounted.
func (h Host) MountPoints(dev dm.DevNo) ([]string, error) { return h.Bindings(dev), nil }

// IsOurs reports whether a device has one of our UUIDs.
func (h Host) IsOurs(dev dm.DevNo) (bool, error) {
	devices, err := dm.List(h.Kernel, "", deviceset.UUIDPrefix)
	for _, d := range devices {
		if info, err := dm.ByName(h.Kernel, d.Name).Info(); err == nil && info.Dev == dev {
			return true, nil
		}
	}
	return false, err
}

// Usage is that of a file system of which nobody has written anything.
func (h Host) Usage(path string) (filesystem.Usage, error) {
	if _, _, ok := h.BoundAt(path); !ok {
		return filesystem.Usage{}, fmt.Errorf("nothing is mounted at %s", path)
	}
	return filesystem.Usage{Total: 1 << 30, Used: 1 << 20, Available: 1<<30 - 1<<20, Inodes: 1 << 16, InodesUsed: 11, InodesFree: 1<<16 - 11}, nil
}

// Sizes of the disks of a World's first pool.
const (
	DataSize     = 64 << 30
	MetadataSize = 64 << 20
)

// NodeName is the name of a World's machine, unless it has another.
const NodeName = "node"

// A World is a simulated machine with the disks of pools.
type World struct {
	*simulated.World
	Node       string // the machine's name
	KubeletDir string
	Pools      []string // their names

	// MostBytes is how large a pool's data may become.
	MostBytes int64
}

// NewWorld makes a world with the disks of the default pool. Its directories for
// mounts are real ones.
func NewWorld(kubeletDir string) *World { return NewWorldOf(kubeletDir, DataSize) }

// NewWorldOf makes a world whose default pool has so much data.
func NewWorldOf(kubeletDir string, data int64) *World {
	w := &World{World: simulated.NewWorld(1 << 40), Node: NodeName, KubeletDir: kubeletDir}
	w.AddPool(plugin.DefaultPool, data)
	return w
}

// Clone returns a copy of the machine, which nobody must be using.
func (w *World) Clone(kubeletDir string) *World {
	return &World{w.World.Clone(), w.Node, kubeletDir, w.Pools, w.MostBytes}
}

// AddPool adds the disks of one more pool.
func (w *World) AddPool(name string, data int64) {
	w.NewDisk(DataDisk(name), data)
	w.NewDisk(MetadataDisk(name), MetadataSize)
	w.Pools = append(w.Pools, name)
}

// DataDisk returns the path of a pool's data.
func DataDisk(pool string) string { return "/dev/" + pool + "-data" }

// MetadataDisk returns the path of a pool's metadata.
func MetadataDisk(pool string) string { return "/dev/" + pool + "-metadata" }

// Root returns where a pool keeps its state: on the simulated machine, and nowhere on
// this one.
func Root(pool string) string { return filepath.Join("/nowhere", pool) }

// Driver makes a driver in a process of its own.
func (w *World) Driver(options ...string) *csi.Driver {
	return csi.New(w.Options(w.Process(nil), options...))
}

// Options are those of a driver in a process. options are for all of its pools.
func (w *World) Options(m *simulated.Machine, options ...string) csi.Options {
	return w.OptionsOn(Machine{m, w.Node}, Host{m}, options...)
}

// OptionsOn is Options for a machine and a host that a test has made something of.
func (w *World) OptionsOn(m deviceset.Machine, h csi.Host, options ...string) csi.Options {
	o := csi.Options{Version: "test", Node: w.Node, KubeletDir: w.KubeletDir, Host: h}
	for _, name := range w.Pools {
		o.Pools = append(o.Pools, &csi.Pool{Name: name, MostBytes: w.MostBytes, Open: func() (*graphdriver.Driver, error) {
			return open(m, name, options)
		}})
	}
	return o
}

// A Machine names pools as a real one does: their UUIDs differ from the first digit on,
// which is part of dm names, and from machine to machine.
type Machine struct {
	*simulated.Machine
	Name string
}

// NewUUID returns a hash of what the simulated machine has counted.
func (m Machine) NewUUID() string {
	sum := sha256.Sum256([]byte(m.Name + m.Machine.NewUUID()))
	return hex.EncodeToString(sum[:16])
}

func open(m deviceset.Machine, pool string, options []string) (*graphdriver.Driver, error) {
	set, err := deviceset.Open(m, Root(pool), true, slices.Concat([]string{
		"dm.datadev=" + DataDisk(pool), "dm.metadatadev=" + MetadataDisk(pool), "dm.use_deferred_deletion=false",
	}, options), nil, nil)
	if err != nil {
		return nil, err
	}
	return graphdriver.New(set, Root(pool), nil, nil)
}
