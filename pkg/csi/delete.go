package csi

import (
	"context"
	"errors"
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// DeleteVolume deletes a volume. Its snapshots and clones stay.
func (d *Driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := d.delete(plugin.Volume, r.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// DeleteSnapshot deletes a snapshot. What was made from it stays.
func (d *Driver) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := checkID("snapshot_id", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	if err := d.delete(plugin.Snapshot, r.GetSnapshotId()); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (d *Driver) delete(k plugin.Kind, text string) error {
	v, err := d.find(k, text)
	if errors.Is(err, plugin.ErrNoSuchID) || errors.Is(err, deviceset.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	dev, active, err := v.layers.ActiveDevice(v.Name)
	if err != nil {
		return err
	}
	if active {
		points, err := d.Host.MountPoints(dev.Dev)
		if err != nil {
			return err
		}
		if len(points) > 0 {
			return fmt.Errorf("%w: it is published or staged at %s", errWrongState, points[0])
		}
	}
	return v.layers.Remove(v.Name)
}
