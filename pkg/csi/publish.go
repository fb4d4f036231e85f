package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// NodePublishVolume shows a staged volume to one user: its file system in a directory, or
// its block device as a file.
func (d *Driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	p, err := d.parsePublication(r)
	if err != nil {
		return nil, err
	}
	if err := d.publish(p); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// A publication is what NodePublishVolume asks for.
type publication struct {
	volume
	access
	staging, target string
	dev             dm.DevNo
	source          string // what is shown
}

func (d *Driver) parsePublication(r *csi.NodePublishVolumeRequest) (p publication, err error) {
	if p.access, err = parseUse(r.GetVolumeId(), r.GetVolumeCapability()); err != nil {
		return p, err
	}
	p.target, p.staging = r.GetTargetPath(), r.GetStagingTargetPath()
	if err := d.checkPath("target_path", p.target); err != nil {
		return p, err
	}
	if p.staging == "" {
		return p, fmt.Errorf("%w: staging_target_path is missing", errNotStaged)
	}
	if err := d.checkPath("staging_target_path", p.staging); err != nil {
		return p, err
	}
	if p.target == p.staging {
		return p, fmt.Errorf("%w: target_path is staging_target_path", errInvalid)
	}
	if p.volume, err = d.find(plugin.Volume, r.GetVolumeId()); err != nil {
		return p, err
	}
	p.readOnly = p.readOnly || r.GetReadonly()
	if err := p.allows(p.access); err != nil {
		return p, err
	}
	info, active, err := p.layers.ActiveDevice(p.Name)
	if err != nil {
		return p, err
	}
	if !active {
		return p, fmt.Errorf("%w: %s", errNotStaged, p.staging)
	}
	p.dev = info.Dev
	if p.source, err = d.Host.Node(info); err != nil {
		return p, err
	}
	if p.block && p.readOnly && !info.ReadOnly() {
		return p, fmt.Errorf("%w: a block volume is read-only if it is staged with a read-only access mode", errWrongState)
	}
	p.readOnly = p.readOnly || p.block && info.ReadOnly()
	if !p.block {
		p.source = p.staging
		m, ok, err := d.Host.MountedAt(p.staging)
		if err != nil {
			return p, err
		}
		if !ok || m.Dev != p.dev {
			return p, fmt.Errorf("%w: %s", errNotStaged, p.staging)
		}
		p.readOnly = p.readOnly || m.ReadOnly // as all that is shown of it
	}
	return p, nil
}

func (d *Driver) publish(p publication) error {
	m, ok, err := d.deviceAt(p.dev, true, p.target)
	switch {
	case err != nil:
		return err
	case ok && m.ReadOnly == p.readOnly && m.Node == p.block:
		return nil
	case ok:
		return fmt.Errorf("%w: it is published at %s, read-only %v", errIncompat, p.target, m.ReadOnly)
	}
	if err := d.checkAlone(p); err != nil {
		return err
	}
	made, err := makeTarget(p.target, p.block)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: target_path: %w", errInvalid, err)
	case err != nil:
		return fmt.Errorf("make target: %w", err)
	}
	err = d.Host.Bind(p.source, p.target, p.readOnly)
	if err != nil && made {
		err = errors.Join(err, removeTarget(p.target))
	}
	return err
}

// checkAlone refuses a second target, unless the access mode allows for it.
func (d *Driver) checkAlone(p publication) error {
	if p.shared {
		return nil
	}
	point, used, err := d.isUsed(p.dev, p.staging)
	if used {
		err = fmt.Errorf("%w: it is published at %s, and its access mode allows for one target", errWrongState, point)
	}
	return err
}

// NodeUnpublishVolume takes a volume from a user. It needs no pool: what is mounted is
// let go of, whatever has become of that.
func (d *Driver) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := d.checkPath("target_path", r.GetTargetPath()); err != nil {
		return nil, err
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err == nil {
		err = d.unpublish(ctx, v, r.GetTargetPath())
	}
	if isAway(err) || errors.Is(err, deviceset.ErrNotFound) || errors.Is(err, plugin.ErrNoSuchID) {
		err = d.unmountOurs(ctx, r.GetTargetPath())
	}
	if err != nil {
		return nil, err
	}
	err = removeTarget(r.GetTargetPath())
	switch {
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrInvalid):
		return nil, fmt.Errorf("%w: it is not what was published: %w", errWrongState, err)
	case err != nil:
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// unpublish unmounts a volume from a target; another volume's file system is left alone.
// A node says nothing: its device may be gone, and its number be another's.
func (d *Driver) unpublish(ctx context.Context, v volume, path string) error {
	m, ok, err := d.at(v, path)
	switch {
	case ok && m.Node:
		return d.unmountOurs(ctx, path)
	case errors.Is(err, errIncompat):
		return fmt.Errorf("%w: %s", errWrongState, err.Error()) // there was nothing to make
	case err != nil || !ok:
		return err
	}
	return v.layers.UnmountDevice(v.Name, path) // which takes the device away if this was its last mount
}

// unmountOurs unmounts a device of ours from a path.
func (d *Driver) unmountOurs(ctx context.Context, path string) error {
	m, ok, err := d.Host.MountedAt(path)
	if err != nil || !ok {
		return err
	}
	ours, err := d.Host.IsOurs(m.Dev)
	ours = ours || m.Gone
	if err != nil {
		return err
	}
	if !ours {
		return fmt.Errorf("%w: device %s is mounted at %s, which is none of ours", errWrongState, m.Dev, path)
	}
	return d.Host.Unmount(ctx, path)
}
