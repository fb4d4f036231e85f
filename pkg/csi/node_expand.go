package csi

import (
	"context"
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// NodeExpandVolume makes the file system of a volume as large as the volume, while it is
// in use.
func (d *Driver) NodeExpandVolume(ctx context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := checkID("volume_path", r.GetVolumePath()); err != nil {
		return nil, err
	}
	size, err := parseRange(r.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := v.checkUse(r.GetVolumeCapability()); err != nil {
		return nil, err
	}
	if size.most != 0 && v.Size > size.most {
		return nil, fmt.Errorf("%w: limit_bytes %d: it has %d", errOutOfRange, size.most, v.Size)
	}
	at, err := d.isAt(v, r.GetVolumePath())
	if err != nil {
		return nil, err
	}
	have, err := v.expand(size) // no error where the controller's part came first
	if err != nil {
		return nil, err
	}
	if !at.Node {
		if err := v.layers.GrowFilesystem(ctx, v.Name); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: have}, nil
}

// isAt fails unless a volume is at a path, and tells how: mounted, or as its device's
// node, as a block volume is where it is staged, too.
func (d *Driver) isAt(v volume, path string) (Mounted, error) {
	if err := d.checkPath("volume_path", path); err != nil {
		return Mounted{}, fmt.Errorf("%w: %s", errNotMounted, err.Error()) // which is not the request's fault
	}
	dev, active, err := v.layers.ActiveDevice(v.Name)
	if err != nil {
		return Mounted{}, err
	}
	m, ok, err := d.Host.MountedAt(path)
	switch {
	case err != nil:
		return Mounted{}, err
	case active && !ok && v.isBlock():
		return Mounted{Dev: dev.Dev, Node: true}, nil
	case !active || !ok || m.Dev != dev.Dev:
		return Mounted{}, fmt.Errorf("%w: %s", errNotMounted, path)
	}
	return m, nil
}
