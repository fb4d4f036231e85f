package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
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
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := v.allows(a); err != nil {
		return nil, err
	}
	if a.block {
		err = d.stageBlock(v, a, path)
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

func (d *Driver) stageBlock(v volume, a access, path string) error {
	if _, mounted, err := d.Host.MountedAt(path); err != nil {
		return err
	} else if mounted {
		return fmt.Errorf("%w: a file system is mounted at %s", errIncompat, path)
	}
	activate := v.layers.ActivateDevice
	if a.readOnly {
		activate = v.layers.ActivateDeviceReadOnly
	}
	_, err := activate(v.Name)
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
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	switch {
	case errors.Is(err, deviceset.ErrNotFound), errors.Is(err, plugin.ErrNoSuchID):
		err = d.unmountOurs(ctx, path)
	case err == nil:
		err = d.unstage(v, path)
	}
	if isAway(err) {
		err = d.unmountOurs(ctx, path) // what is mounted is let go of, whatever the pool says
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// isAway reports whether there is no pool to ask.
func isAway(err error) bool {
	return errors.Is(err, deviceset.ErrUnavailable) || errors.Is(err, deviceset.ErrShutDown)
}

// unstage unmounts a volume, and takes its device away if it is mounted nowhere else.
func (d *Driver) unstage(v volume, path string) error {
	dev, active, err := v.layers.ActiveDevice(v.Name)
	if err != nil {
		return err
	}
	m, mounted, err := d.Host.MountedAt(path)
	switch {
	case err != nil:
		return err
	case mounted && (!active || m.Dev != dev.Dev || m.Node):
		return fmt.Errorf("%w: something else is mounted at %s", errWrongState, path)
	case mounted:
		return v.layers.UnmountDevice(v.Name, path)
	case !active:
		return nil
	}
	return d.drop(v, dev.Dev, path)
}

// drop takes the device of a volume away that is staged as it is. A user of its node must
// not lose it: the next device may get its number, and be another's volume.
func (d *Driver) drop(v volume, dev dm.DevNo, staging string) error {
	point, used, err := d.isUsed(dev, staging)
	switch {
	case err != nil:
		return err
	case used && !v.isBlock():
		return nil // it is mounted, there
	case used:
		return fmt.Errorf("%w: it is still published at %s", errWrongState, point)
	}
	return v.layers.DeactivateDevice(v.Name)
}
