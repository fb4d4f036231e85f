package csi

import (
	"context"
	"errors"
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// NodeGetCapabilities lists the calls that are there.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	type rpc = csi.NodeServiceCapability_RPC
	return &csi.NodeGetCapabilitiesResponse{Capabilities: capabilities(
		func(t csi.NodeServiceCapability_RPC_Type) *csi.NodeServiceCapability {
			return &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &rpc{Type: t}}}
		},
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
	)}, nil
}

// NodeGetInfo names the node.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.Node, AccessibleTopology: d.here()}, nil
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

// mayUnmount refuses to unmount what is not v. That is no ALREADY_EXISTS: there was
// nothing to make.
func (d *Driver) mayUnmount(v volume, path string) error {
	_, _, err := d.at(v, path)
	if errors.Is(err, errIncompat) {
		err = fmt.Errorf("%w: %s", errWrongState, err.Error())
	}
	return err
}

func (d *Driver) deviceAt(dev dm.DevNo, active bool, path string) (m Mounted, ok bool, err error) {
	m, ok, err = d.Host.MountedAt(path)
	if err == nil && ok && (!active || m.Dev != dev) {
		err = fmt.Errorf("%w: something else is mounted at %s", errIncompat, path)
	}
	return m, ok, err
}
