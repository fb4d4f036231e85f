package csi

import (
	"context"
	"errors"
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// ControllerGetCapabilities lists the calls that are there.
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return plugin.ControllerCapabilities(), nil
}

// ValidateVolumeCapabilities confirms what a volume can be used for.
func (d *Driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, fmt.Errorf("%w: volume_id and volume_capabilities are needed", errInvalid)
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := v.suits(r); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters(),
	}}, nil
}

func (v volume) suits(r *csi.ValidateVolumeCapabilitiesRequest) error {
	want, err := parseCapabilities(r.GetVolumeCapabilities())
	if err != nil {
		return err
	}
	p, err := parseParameters(r.GetParameters())
	switch {
	case err != nil:
		return err
	case len(r.GetMutableParameters()) > 0:
		return fmt.Errorf("%w: mutable parameters", errUnsupported)
	case len(r.GetVolumeContext()) > 0:
		return fmt.Errorf("%w: volumes have no context", errUnsupported)
	case p.pool != "" && p.pool != v.pool.Name:
		return fmt.Errorf("%w: it is in pool %s", errIncompat, v.pool.Name)
	}
	return v.allows(want)
}

// allows refuses a use that a volume was not made for.
func (v volume) allows(a access) error {
	switch fs := v.fileSystem(); {
	case a.block != v.isBlock() && v.Labels[labelAccess] != "": // one that was adopted may be either
		return fmt.Errorf("%w: it was made for access as %s", errWrongState, v.Labels[labelAccess])
	case !a.block && a.fs != "" && fs != "" && a.fs != fs:
		return fmt.Errorf("%w: it has file system %s, not %s", errWrongState, fs, a.fs)
	}
	return nil
}

// fileSystem returns the one that v has or shall have; "" where what is on it was
// written by its users.
func (v volume) fileSystem() string {
	if v.FS != "none" {
		return v.FS
	}
	return v.Labels[labelFS]
}

// ControllerGetVolume describes a volume.
func (d *Driver) ControllerGetVolume(_ context.Context, r *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if i, ours := plugin.ParseID(plugin.Volume, r.GetVolumeId()); errors.Is(err, deviceset.ErrNotFound) && ours == nil && d.running.about(i.Device) {
		err = fmt.Errorf("%w: %s", errPending, i.Device) // it may be there in a moment
	}
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: d.presentVolume(&v), Status: &csi.ControllerGetVolumeResponse_VolumeStatus{},
	}, nil
}
