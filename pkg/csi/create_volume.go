package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A creation is what CreateVolume asks for.
type creation struct {
	parameters
	name   string
	size   sizeRange
	access access
	from   *plugin.ID // what it is made from
	kind   plugin.Kind
	source *volume // and that, once it was looked up
}

// CreateVolume makes a volume: blank, or from a snapshot or a volume, as large or
// larger. A blank one is formatted when it is first staged.
func (d *Driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	want, err := d.parseCreation(r)
	if err != nil {
		return nil, err
	}
	v, made, err := d.made(want)
	if err == nil && !made {
		v, err = d.create(want)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: d.presentVolume(&v)}, nil
}

func (d *Driver) parseCreation(r *csi.CreateVolumeRequest) (c creation, err error) {
	c.name = r.GetName()
	if err := checkText("name", c.name); err != nil {
		return c, err
	}
	if c.access, err = parseCapabilities(r.GetVolumeCapabilities()); err != nil {
		return c, err
	}
	if c.parameters, err = parseParameters(r.GetParameters()); err != nil {
		return c, err
	}
	if c.access.fs == "" && !c.access.block {
		c.access.fs = c.fs
	}
	if len(r.GetMutableParameters()) > 0 {
		return c, fmt.Errorf("%w: mutable parameters are not known: %q", errInvalid, slices.Sorted(maps.Keys(r.GetMutableParameters())))
	}
	if c.access.block && (c.mkfs != "" || c.discard) {
		return c, fmt.Errorf("%w: a block volume has no file system for mkfs-options or discard", errInvalid)
	}
	if c.size, err = parseRange(r.GetCapacityRange()); err != nil {
		return c, err
	}
	if err := d.checkTopology(r.GetAccessibilityRequirements()); err != nil {
		return c, err
	}
	c.from, c.kind, err = parseSource(r.GetVolumeContentSource())
	return c, err
}

// checkTopology refuses a volume that may not be on this node.
func (d *Driver) checkTopology(r *csi.TopologyRequirement) error {
	if !plugin.Allows(r, d.Node) {
		return fmt.Errorf("%w: volumes are made on node %s", errNotHere, d.Node)
	}
	return nil
}

// parseSource returns what a volume is to be made from, if it is from anything.
func parseSource(s *csi.VolumeContentSource) (*plugin.ID, plugin.Kind, error) {
	var k plugin.Kind
	var text string
	switch t := s.GetType().(type) {
	case nil:
		if s != nil {
			return nil, "", fmt.Errorf("%w: a content source without type", errInvalid)
		}
		return nil, "", nil
	case *csi.VolumeContentSource_Snapshot:
		k, text = plugin.Snapshot, t.Snapshot.GetSnapshotId()
	case *csi.VolumeContentSource_Volume:
		k, text = plugin.Volume, t.Volume.GetVolumeId()
	}
	i, err := plugin.ParseID(k, text)
	if err != nil {
		return nil, "", fmt.Errorf("content source: %w", err)
	}
	return &i, k, nil
}

// poolFor returns the pool that a volume is to lie in.
func (d *Driver) poolFor(c creation) (*Pool, error) {
	if c.source == nil {
		name := c.pool
		if name == "" {
			name = plugin.DefaultPool
		}
		return d.pools.named(name)
	}
	if c.pool != "" && c.pool != c.source.pool.Name {
		return nil, fmt.Errorf("%w: the volume is to be in pool %s, and its source is in pool %s", errInvalid, c.pool, c.source.pool.Name)
	}
	return c.source.pool, nil
}

// made returns the volume of that name, if there is one. What it was made from may be
// gone since.
func (d *Driver) made(c creation) (v volume, made bool, err error) {
	device := plugin.Volume.DeviceName(c.name)
	for _, p := range d.pools {
		layers, err := p.Layers()
		if err != nil {
			continue // others serve
		}
		if have, err := layers.Device(device); err == nil {
			v := volume{have, p, layers}
			return v, true, v.satisfies(c)
		}
	}
	return volume{}, false, nil
}

func (d *Driver) create(c creation) (volume, error) {
	if c.from != nil {
		source, err := d.find(c.kind, c.from.String())
		if err != nil {
			return volume{}, fmt.Errorf("content source: %w", err)
		}
		c.source = &source
	}
	p, err := d.poolFor(c)
	if err == nil {
		err = p.takesNew(c.source)
	}
	if err != nil {
		return volume{}, err
	}
	layers, err := p.Layers()
	if err != nil {
		return volume{}, err
	}
	device := plugin.Volume.DeviceName(c.name)
	if err := c.make(layers, device); err != nil {
		switch {
		case (errors.Is(err, deviceset.ErrReadOnly) || errors.Is(err, deviceset.ErrNoChanges)) && c.source == nil:
			err = fmt.Errorf("%w: %w", errNotHere, err) // another node may have a pool that takes it
		case errors.Is(err, deviceset.ErrTooSmall):
			err = fmt.Errorf("%w: its source has grown meanwhile: %w", errPending, err)
		}
		return volume{}, err
	}
	have, err := layers.Device(device)
	return volume{have, p, layers}, err
}

// make makes the device.
func (c creation) make(layers *graphdriver.Driver, device string) error {
	o, err := c.options(layers)
	if err != nil {
		return err
	}
	switch {
	case c.source == nil || c.source.blank():
		return layers.CreateReadWrite(device, "", o)
	case plugin.KindOf(c.source.Name) == plugin.Volume:
		return layers.CreateFromTemplate(device, c.source.Name, "", o, true)
	}
	return layers.CreateReadWrite(device, c.source.Name, o)
}

func (c creation) options(layers *graphdriver.Driver) (*graphdriver.CreateOpts, error) {
	labels := c.labels()
	suits, least := int64(defaultSize), int64(1)
	if t, err := filesystem.ParseType(labels[labelFS]); err == nil {
		least = max(least, t.MinSize())
	}
	storage := map[string]string{}
	if c.source != nil {
		suits, least = c.source.Size, c.source.Size
		if fs := c.source.fileSystem(); !c.access.block && c.access.fs != "" && fs != "" && c.access.fs != fs {
			return nil, fmt.Errorf("%w: fs_type %s: its source %s has %s", errInvalid, c.access.fs, c.source, fs)
		}
		if c.size.most != 0 && c.size.most < least {
			return nil, fmt.Errorf("%w: limit_bytes %d: its source %s has %d bytes", errOutOfRange, c.size.most, c.source, least)
		}
		if c.size.least != 0 && c.size.least < least {
			return nil, fmt.Errorf("%w: required_bytes %d: its source %s has %d bytes", errOutOfRange, c.size.least, c.source, least)
		}
	}
	if c.source == nil || c.source.blank() {
		storage["fs"] = "none"
	}
	size, err := c.size.pick(suits, least, layers.BlockSize())
	if err != nil {
		return nil, err
	}
	storage["size"] = strconv.FormatInt(size, 10)
	for key, value := range labels {
		if value != "" {
			storage["label."+key] = value
		}
	}
	return &graphdriver.CreateOpts{StorageOpt: storage}, nil
}

// labels are what is written down with the volume: what a later call compares, and what
// staging goes by.
func (c creation) labels() map[string]string {
	labels := map[string]string{labelName: showable(c.name), labelAccess: accessBlock, labelMkfs: c.mkfs}
	if !c.access.block {
		labels[labelAccess] = accessMount
		labels[labelFS] = c.access.fs
	}
	if c.discard {
		labels[labelDiscard] = "true"
	}
	if c.from != nil {
		labels[labelSource] = c.from.Device
	}
	switch {
	case c.access.block || labels[labelFS] != "":
	case c.from == nil:
		labels[labelFS] = string(filesystem.Ext4)
	case c.source != nil:
		labels[labelFS] = c.source.fileSystem()
	}
	return labels
}

// satisfies refuses a volume that a call which wants c would not have made.
func (v volume) satisfies(c creation) error {
	labels := c.labels()
	if labels[labelFS] == "" && !c.access.block {
		labels[labelFS] = v.Labels[labelFS] // it was the source's
	}
	for _, key := range []string{labelAccess, labelFS, labelMkfs, labelDiscard, labelSource} {
		if v.Labels[key] != labels[key] {
			return fmt.Errorf("%w: a volume of that name has %s %q, not %q", errIncompat, key, v.Labels[key], labels[key])
		}
	}
	if c.pool != "" && c.pool != v.pool.Name || c.pool == "" && c.from == nil && v.pool.Name != plugin.DefaultPool || c.from != nil && c.from.Pool != v.pool.Key() {
		return fmt.Errorf("%w: a volume of that name is in pool %s", errIncompat, v.pool.Name)
	}
	if !c.size.has(v.Size) {
		return fmt.Errorf("%w: a volume of that name has %d bytes", errIncompat, v.Size)
	}
	return v.Err
}

// showable returns a name as people can read it.
func showable(name string) string {
	if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` {
		return quoted[1:min(len(quoted)-1, 256)]
	}
	return name
}
