package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/test/postgres/daemon"
)

// A driver is csi-dmthin as an orchestrator sees it: a socket, and a folder in which
// it mounts what it is told to.
type driver struct {
	socket     *grpc.ClientConn
	identity   csi.IdentityClient
	controller csi.ControllerClient
	node       csi.NodeClient
	kubelet    string
}

func dial(socket, kubelet string) (*driver, error) {
	c, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &driver{c, csi.NewIdentityClient(c), csi.NewControllerClient(c), csi.NewNodeClient(c), kubelet}, nil
}

// patience is how long a call may take.
const patience = daemon.Patience

// call makes one call.
func call[Request, Response any](
	method func(context.Context, Request, ...grpc.CallOption) (Response, error), request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return method(ctx, request)
}

// isReady asks a driver that may be only just starting. It answers at once, but tells
// of volumes only when its pool is there.
func (d *driver) isReady() (bool, error) {
	_, err := call(d.controller.ListVolumes, &csi.ListVolumesRequest{})
	if status.Code(err) == codes.Unavailable {
		return false, nil
	}
	return err == nil, err
}

// A volume is one that the driver has made, and where a pod would find it.
type volume struct {
	*csi.Volume
	staging, target string
}

// use is what all volumes are for: one writer, and a file system.
var use = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
}

// createVolume makes a volume, empty if there is no source.
func (d *driver) createVolume(name string, size int64, source *csi.VolumeContentSource) (*volume, error) {
	r, err := call(d.controller.CreateVolume, &csi.CreateVolumeRequest{
		Name:                name,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities:  []*csi.VolumeCapability{use},
		VolumeContentSource: source,
	})
	if err != nil {
		return nil, err
	}
	if r.Volume.CapacityBytes < size {
		return nil, fmt.Errorf("volume %s has %d bytes, and not %d", name, r.Volume.CapacityBytes, size)
	}
	v := &volume{Volume: r.Volume}
	v.staging = filepath.Join(d.kubelet, "staging", name)
	v.target = filepath.Join(d.kubelet, "pods", name, "mount")
	return v, nil
}

func (d *driver) deleteVolume(v *volume) error {
	_, err := call(d.controller.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: v.VolumeId})
	return err
}

// publish stages and publishes a volume. The folders around the target are the
// orchestrator's, and the target itself is the driver's.
func (d *driver) publish(v *volume) error {
	if err := errors.Join(os.MkdirAll(v.staging, 0o755), os.MkdirAll(filepath.Dir(v.target), 0o755)); err != nil {
		return err
	}
	_, err := call(d.node.NodeStageVolume, &csi.NodeStageVolumeRequest{
		VolumeId: v.VolumeId, VolumeContext: v.VolumeContext,
		StagingTargetPath: v.staging, VolumeCapability: use,
	})
	if err != nil {
		return err
	}
	_, err = call(d.node.NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: v.VolumeId, VolumeContext: v.VolumeContext,
		StagingTargetPath: v.staging, TargetPath: v.target, VolumeCapability: use,
	})
	return err
}

// unpublish undoes it. The driver removes the target, and nothing of the orchestrator's.
func (d *driver) unpublish(v *volume) error {
	_, unpublish := call(d.node.NodeUnpublishVolume,
		&csi.NodeUnpublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: v.target})
	_, unstage := call(d.node.NodeUnstageVolume,
		&csi.NodeUnstageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: v.staging})
	if err := errors.Join(unpublish, unstage); err != nil {
		return err
	}
	if _, err := os.Lstat(v.target); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is still there", v.target), err)
	}
	_, err := os.Lstat(v.staging)
	return err
}

// expand makes a volume larger, and then its file system, mounted as it is.
func (d *driver) expand(v *volume, size int64) error {
	grown := &csi.CapacityRange{RequiredBytes: size}
	r, err := call(d.controller.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{
		VolumeId: v.VolumeId, CapacityRange: grown, VolumeCapability: use,
	})
	if err != nil {
		return err
	}
	if !r.NodeExpansionRequired || r.CapacityBytes < size {
		return fmt.Errorf("the answer is %v, which does not grow a file system to %d bytes", r, size)
	}
	_, err = call(d.node.NodeExpandVolume, &csi.NodeExpandVolumeRequest{
		VolumeId: v.VolumeId, VolumePath: v.target, StagingTargetPath: v.staging,
		CapacityRange: grown, VolumeCapability: use,
	})
	return err
}

func (d *driver) createSnapshot(name string, v *volume) (*csi.Snapshot, error) {
	r, err := call(d.controller.CreateSnapshot, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: v.VolumeId})
	if err == nil && !r.Snapshot.ReadyToUse {
		err = fmt.Errorf("snapshot %s is not ready at once", name)
	}
	return r.GetSnapshot(), err
}

func (d *driver) deleteSnapshot(s *csi.Snapshot) error {
	_, err := call(d.controller.DeleteSnapshot, &csi.DeleteSnapshotRequest{SnapshotId: s.SnapshotId})
	return err
}

// fromSnapshot and fromVolume say what a new volume begins with.
func fromSnapshot(s *csi.Snapshot) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.SnapshotId},
	}}
}

func fromVolume(v *volume) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.VolumeId},
	}}
}

// isEmpty fails if the driver still knows a volume or a snapshot.
func (d *driver) isEmpty() error {
	volumes, err := call(d.controller.ListVolumes, &csi.ListVolumesRequest{})
	if err != nil {
		return err
	}
	snapshots, err := call(d.controller.ListSnapshots, &csi.ListSnapshotsRequest{})
	if err == nil && len(volumes.Entries)+len(snapshots.Entries) > 0 {
		err = fmt.Errorf("there are still %v %v", volumes.Entries, snapshots.Entries)
	}
	return err
}
