// Package graphtest makes a graphdriver.Driver a storage driver of go.podman.io/storage,
// the library behind Podman and CRI-O, and its tests are that library's conformance suite.
//
// It is a module of its own, so that whoever uses csi-dmthin need not have that library.
package graphtest

import (
	"fmt"
	"strings"

	storage "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/directory"
	"go.podman.io/storage/pkg/idtools"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// Name is what the driver is registered as: the name of its ancestor.
const Name = "devicemapper"

// Register makes the driver known to the library. A program calls it once, before it
// opens a store.
func Register() error { return storage.Register(Name, Init) }

// Init opens the driver with its state under home. Its options are those of
// docs/options.md; those of the library's other drivers are not for it.
func Init(home string, o storage.Options) (storage.Driver, error) {
	k, err := devmapper.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrNotSupported, err)
	}
	_ = k.Close() // there is one
	d, err := graphdriver.Init(home, ours(o.DriverOptions), nil, nil)
	if err != nil {
		return nil, err
	}
	proto := adapt(storage.ProtoDriver.DeferredRemove, d)
	return storage.NewNaiveDiffDriver(proto, storage.NewNaiveLayerIDMapUpdater(proto)), nil
}

// ours leaves out the options of other drivers, which the library gives to each.
func ours(options []string) (own []string) {
	for _, o := range options {
		switch driver, _, _ := strings.Cut(o, "."); driver {
		case "btrfs", "overlay", "overlay2", "vfs", "zfs":
		default:
			own = append(own, o)
		}
	}
	return own
}

// A driver is a graphdriver.Driver with the library's types. Its clean-up is a type that
// the library keeps to itself and that no other package can name, so the compiler has to
// infer it, from the interface's own method.
type driver[cleanup ~func() error] struct{ *graphdriver.Driver }

// adapt makes a driver; the method only says which type its clean-up has.
func adapt[cleanup ~func() error](_ func(storage.ProtoDriver, string) (cleanup, error), d *graphdriver.Driver) driver[cleanup] {
	return driver[cleanup]{d}
}

// Create makes a layer. Id maps are not needed: the library changes the owners itself.
func (d driver[_]) Create(id, parent string, o *storage.CreateOpts) error {
	return d.Driver.Create(id, parent, creating(o))
}

// CreateReadWrite makes a layer for a container.
func (d driver[_]) CreateReadWrite(id, parent string, o *storage.CreateOpts) error {
	return d.Driver.CreateReadWrite(id, parent, creating(o))
}

// CreateFromTemplate makes a copy of a layer.
func (d driver[_]) CreateFromTemplate(
	id, template string, _ *idtools.IDMappings, parent string, _ *idtools.IDMappings, o *storage.CreateOpts, readWrite bool,
) error {
	return d.Driver.CreateFromTemplate(id, template, parent, creating(o), readWrite)
}

func creating(o *storage.CreateOpts) *graphdriver.CreateOpts {
	if o == nil {
		return nil
	}
	return &graphdriver.CreateOpts{StorageOpt: o.StorageOpt}
}

// Get mounts a layer.
func (d driver[_]) Get(id string, o storage.MountOpts) (string, error) {
	return d.Driver.Get(id, graphdriver.MountOpts{MountLabel: o.MountLabel, Options: o.Options})
}

// DeferredRemove removes a layer. What takes long happens without anybody asking, so
// there is nothing to clean up later.
func (d driver[cleanup]) DeferredRemove(id string) (cleanup, error) { return nil, d.Remove(id) }

// GetTempDirRootDirs returns none: removing a layer moves no files.
func (d driver[_]) GetTempDirRootDirs() []string { return nil }

// ReadWriteDiskUsage counts the files of a layer.
func (d driver[_]) ReadWriteDiskUsage(id string) (usage *directory.DiskUsage, err error) {
	dir, err := d.Driver.Get(id, graphdriver.MountOpts{Options: []string{"ro"}})
	if err != nil {
		return nil, err
	}
	usage, err = directory.Usage(dir)
	if putErr := d.Put(id); err == nil {
		err = putErr
	}
	return usage, err
}

// Dedup does nothing: what layers share they share by their making.
func (d driver[_]) Dedup(storage.DedupArgs) (storage.DedupResult, error) {
	return storage.DedupResult{}, nil
}

// SyncMode returns none: the last Put of a layer unmounts it, which writes it out.
func (d driver[_]) SyncMode() storage.SyncMode { return storage.SyncModeNone }
