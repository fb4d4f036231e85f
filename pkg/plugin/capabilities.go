package plugin

import (
	"context"
	"slices"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// An Identity answers CSI's Identity service, the same everywhere.
type Identity struct {
	csi.UnimplementedIdentityServer
	Version string
}

// GetPluginInfo names the plugin.
func (i *Identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Name, VendorVersion: i.Version}, nil
}

// GetPluginCapabilities tells what the plugin is able to do.
func (i *Identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	service := func(t csi.PluginCapability_Service_Type) *csi.PluginCapability {
		return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: t}}}
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		service(csi.PluginCapability_Service_CONTROLLER_SERVICE),
		service(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS),
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

// Probe says whether the plugin answers. It says nothing of pools: one that is ill must
// not have its users' driver restarted.
func (i *Identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// ControllerCapabilities are the calls of the Controller service that are there.
func ControllerCapabilities() *csi.ControllerGetCapabilitiesResponse {
	type rpc = csi.ControllerServiceCapability_RPC
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: capabilities(
		func(t csi.ControllerServiceCapability_RPC_Type) *csi.ControllerServiceCapability {
			return &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &rpc{Type: t}}}
		},
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	)}
}

// NodeCapabilities are the calls of the Node service that are there.
func NodeCapabilities() *csi.NodeGetCapabilitiesResponse {
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
	)}
}

func capabilities[T any, P ~int32](make func(P) T, of ...P) (all []T) {
	slices.Sort(of)
	for _, c := range of {
		all = append(all, make(c))
	}
	return all
}
