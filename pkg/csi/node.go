package csi

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// NodeGetCapabilities lists the calls that are there.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return plugin.NodeCapabilities(), nil
}

// NodeGetInfo names the node.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.Node, AccessibleTopology: d.places[0]}, nil
}

// checkPath refuses a path that is not below the kubelet's directory.
func (d *Driver) checkPath(field, path string) error {
	if path == "" {
		return fmt.Errorf("%w: %s is missing", errInvalid, field)
	}
	if err := filesystem.Beneath(d.KubeletDir, path); err != nil {
		return fmt.Errorf("%w: %s: %w", errInvalid, field, err)
	}
	return nil
}

// at reports whether a volume is mounted at a path: its file system, or its node. What
// else may be there is refused.
func (d *Driver) at(v volume, path string) (m Mounted, ok bool, err error) {
	dev, active, err := v.layers.ActiveDevice(v.Name)
	if err != nil {
		return m, false, err
	}
	return d.deviceAt(dev.Dev, active, path)
}

// isUsed reports whether a device is mounted, or its node shown, at another path than
// that where it is staged.
func (d *Driver) isUsed(dev dm.DevNo, staging string) (point string, used bool, err error) {
	points, err := d.Host.MountPoints(dev)
	real := d.realPath(staging)
	for _, point := range points {
		if point != staging && point != real {
			return point, true, err
		}
	}
	return "", false, err
}

// realPath is a path as the kernel has it, where the kubelet's directory is reached by a
// symbolic link.
func (d *Driver) realPath(path string) string {
	rest, ok := strings.CutPrefix(path, d.KubeletDir)
	real, err := filepath.EvalSymlinks(d.KubeletDir)
	if !ok || err != nil {
		return path
	}
	return real + rest
}

func (d *Driver) deviceAt(dev dm.DevNo, active bool, path string) (m Mounted, ok bool, err error) {
	m, ok, err = d.Host.MountedAt(path)
	if err == nil && ok && (!active || m.Dev != dev) {
		err = fmt.Errorf("%w: something else is mounted at %s", errIncompat, path)
	}
	return m, ok, err
}
