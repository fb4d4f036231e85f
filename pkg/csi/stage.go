package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// NodeStageVolume makes a volume's block device, and mounts its file system for all who
// will have it. A blank volume is formatted, once. A file system that is smaller than
// the volume grows.
func (d *Driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	a, err := parseUse(r.GetVolumeId(), r.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	path := r.GetStagingTargetPath()
	if err := d.checkPath("staging_target_path", path); err != nil {
		return nil, err
	}
	v, err := d.find(aVolume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := v.allows(a); err != nil {
		return nil, err
	}
	if a.block {
		err = d.stageBlock(v, path)
	} else {
		err = d.stageMount(v, a, path)
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// parseUse reads what every call has that begins to use a volume.
func parseUse(id string, c *csi.VolumeCapability) (a access, err error) {
	if err := checkID("volume_id", id); err != nil {
		return a, err
	}
	if c == nil {
		return a, fmt.Errorf("%w: volume_capability is missing", errInvalid)
	}
	return parseCapability(c)
}

func (d *Driver) stageBlock(v volume, path string) error {
	if _, mounted, err := d.Host.MountedAt(path); err != nil {
		return err
	} else if mounted {
		return fmt.Errorf("%w: a file system is mounted at %s", errIncompat, path)
	}
	_, err := v.layers.ActivateDevice(v.Name)
	return err
}

func (d *Driver) stageMount(v volume, a access, path string) error {
	if _, _, err := d.at(v, path); err != nil {
		return err
	}
	if !v.blank() || a.readOnly {
		return v.mount(a, path)
	}
	// The device is made once for both, unless a formatting was cut short: then what is
	// on it goes first.
	if !v.Formatting {
		if _, err := v.layers.ActivateDevice(v.Name); err != nil {
			return err
		}
	}
	err := v.format(a)
	if err == nil {
		err = v.mount(a, path)
	}
	if err != nil {
		_ = v.layers.DeactivateDevice(v.Name) // mounted or not: what is, stays
	}
	return err
}

func (v volume) mount(a access, path string) error {
	return v.layers.MountDevice(v.Name, path, graphdriver.MountOpts{Options: v.mountOptions(a)})
}

// format makes the file system of a volume that has none yet.
func (v volume) format(a access) error {
	fs := v.fileSystem()
	if fs == "" {
		fs = a.fs
	}
	t, err := filesystem.ParseType(fs)
	if err != nil {
		return err
	}
	words, err := mkfsWords(v.Labels[labelMkfs])
	if err != nil {
		return err
	}
	return v.layers.FormatDevice(v.Name, t, words)
}

func (v volume) mountOptions(a access) []string {
	options := append([]string(nil), a.flags...)
	if v.Labels[labelDiscard] == "true" && !strings.Contains(strings.Join(options, ","), "discard") {
		options = append(options, "discard")
	}
	if a.readOnly {
		options = append(options, "ro")
	}
	return options
}

// NodeUnstageVolume undoes NodeStageVolume. That the volume is not staged is no error.
func (d *Driver) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	path := r.GetStagingTargetPath()
	if err := d.checkPath("staging_target_path", path); err != nil {
		return nil, err
	}
	v, err := d.find(aVolume, r.GetVolumeId())
	switch {
	case errors.Is(err, deviceset.ErrUnavailable), errors.Is(err, deviceset.ErrNotFound), errors.Is(err, errNoSuchID):
		err = d.unmountOurs(ctx, path) // what is mounted is let go of, whatever the pool says
	case err == nil:
		err = d.unstage(v, path)
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *Driver) unstage(v volume, path string) error {
	if err := d.mayUnmount(v, path); err != nil {
		return err
	}
	if err := v.layers.UnmountDevice(v.Name, path); err != nil {
		return err
	}
	dev, active, err := v.layers.ActiveDevice(v.Name)
	if err != nil || !active {
		return err
	}
	// Of a block volume nothing is mounted but, where it is published, its node.
	if points, err := d.Host.MountPoints(dev.Dev); err != nil || len(points) > 0 {
		return err
	}
	return v.layers.DeactivateDevice(v.Name)
}
