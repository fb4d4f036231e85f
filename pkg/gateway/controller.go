package gateway

import (
	"context"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// DeleteVolume deletes a volume. One that cannot be there is deleted; one whose pool is
// absent may be there.
func (g *Gateway) DeleteVolume(ctx context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	a, _, err := g.routeID(ctx, plugin.Volume, "volume_id", r.GetVolumeId())
	switch {
	case status.Code(err) == codes.NotFound:
		return &csi.DeleteVolumeResponse{}, nil
	case err != nil:
		return nil, err
	}
	return call(ctx, g, a, "DeleteVolume", a.DeleteVolume, r)
}

// DeleteSnapshot deletes a snapshot likewise.
func (g *Gateway) DeleteSnapshot(ctx context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	a, _, err := g.routeID(ctx, plugin.Snapshot, "snapshot_id", r.GetSnapshotId())
	switch {
	case status.Code(err) == codes.NotFound:
		return &csi.DeleteSnapshotResponse{}, nil
	case err != nil:
		return nil, err
	}
	return call(ctx, g, a, "DeleteSnapshot", a.DeleteSnapshot, r)
}

// ControllerExpandVolume makes a volume larger.
func (g *Gateway) ControllerExpandVolume(ctx context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	a, _, err := g.routeID(ctx, plugin.Volume, "volume_id", r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return call(ctx, g, a, "ControllerExpandVolume", a.ControllerExpandVolume, r)
}

// ValidateVolumeCapabilities confirms what a volume can be used for.
func (g *Gateway) ValidateVolumeCapabilities(ctx context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, errMissing("volume_capabilities")
	}
	a, _, err := g.routeID(ctx, plugin.Volume, "volume_id", r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return call(ctx, g, a, "ValidateVolumeCapabilities", a.ValidateVolumeCapabilities, r)
}

// ControllerGetVolume describes a volume.
func (g *Gateway) ControllerGetVolume(ctx context.Context, r *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	a, _, err := g.routeID(ctx, plugin.Volume, "volume_id", r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	answer, err := call(ctx, g, a, "ControllerGetVolume", a.ControllerGetVolume, r)
	if err != nil {
		return nil, err
	}
	if have := answer.GetVolume().GetVolumeId(); have != r.GetVolumeId() {
		return nil, wrongAnswer(a, "ControllerGetVolume", have)
	}
	answer.Volume.AccessibleTopology = []*csi.Topology{plugin.Topology(a.node)}
	return answer, nil
}

// CreateSnapshot makes a snapshot, where its volume is.
func (g *Gateway) CreateSnapshot(ctx context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if r.GetName() == "" {
		return nil, errMissing("name")
	}
	a, source, err := g.routeID(ctx, plugin.Volume, "source_volume_id", r.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	answer, err := call(ctx, g, a, "CreateSnapshot", a.CreateSnapshot, r)
	if err != nil {
		return nil, err
	}
	made := plugin.ID{Pool: source.Pool, Device: plugin.Snapshot.DeviceName(r.GetName())}.String()
	if s := answer.GetSnapshot(); s.GetSnapshotId() != made || s.GetSourceVolumeId() != r.GetSourceVolumeId() {
		return nil, wrongAnswer(a, "CreateSnapshot", s.GetSnapshotId())
	}
	return answer, nil
}

// GetSnapshot describes a snapshot.
func (g *Gateway) GetSnapshot(ctx context.Context, r *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	a, _, err := g.routeID(ctx, plugin.Snapshot, "snapshot_id", r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	answer, err := call(ctx, g, a, "GetSnapshot", a.GetSnapshot, r)
	if err != nil {
		return nil, err
	}
	if have := answer.GetSnapshot().GetSnapshotId(); have != r.GetSnapshotId() {
		return nil, wrongAnswer(a, "GetSnapshot", have)
	}
	return answer, nil
}
