package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// CreateSnapshot makes a snapshot of a volume as it is now. A file system that is
// mounted is frozen for it, for as long as one message to the pool takes.
func (d *Driver) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := errors.Join(checkText("name", r.GetName()), checkID("source_volume_id", r.GetSourceVolumeId())); err != nil {
		return nil, err
	}
	p, err := parseParameters(r.GetParameters())
	if err != nil {
		return nil, err
	}
	if p.fs = ""; p != (parameters{}) {
		return nil, fmt.Errorf("%w: a snapshot lies where its volume does, and has no parameters", errInvalid)
	}
	if err := d.checkTopology(r.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	s, err := d.snapshot(r.GetSourceVolumeId(), r.GetName())
	if errors.Is(err, deviceset.ErrPoolFull) {
		// The snapshotter could not delete what it has heard RESOURCE_EXHAUSTED of.
		err = fmt.Errorf("%w: %w", errWrongState, err)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: presentSnapshot(s)}, nil
}

func checkID(field, text string) error {
	if text == "" {
		return fmt.Errorf("%w: %s is missing", errInvalid, field)
	}
	return nil
}

func (d *Driver) snapshot(sourceID, name string) (volume, error) {
	device := plugin.Snapshot.DeviceName(name)
	for _, p := range d.pools {
		layers, err := p.Layers()
		if err != nil {
			continue
		}
		have, err := layers.Device(device)
		if err != nil {
			continue
		}
		s := volume{have, p, layers}
		if s.sourceID() != sourceID {
			return volume{}, fmt.Errorf("%w: a snapshot of that name is one of %s", errIncompat, s.sourceID())
		}
		return s, s.Err // whether its source is there still, or not
	}
	source, err := d.find(plugin.Volume, sourceID)
	if err != nil {
		return volume{}, fmt.Errorf("source volume: %w", err)
	}
	labels := map[string]string{}
	maps.Copy(labels, source.Labels)
	labels[labelName], labels[labelSource] = showable(name), source.Name
	if source.blank() {
		labels[labelBlank] = "true"
	}
	storage := map[string]string{"readonly": "true"}
	for key, value := range labels {
		storage["label."+key] = value
	}
	if err := source.layers.Create(device, source.Name, &graphdriver.CreateOpts{StorageOpt: storage}); err != nil {
		return volume{}, err
	}
	have, err := source.layers.Device(device)
	return volume{have, source.pool, source.layers}, err
}

// GetSnapshot describes a snapshot.
func (d *Driver) GetSnapshot(_ context.Context, r *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if err := checkID("snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	s, err := d.find(plugin.Snapshot, r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: presentSnapshot(s)}, nil
}
