package csi_test

import (
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

func TestValidateVolumeCapabilities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	ext4, raw := l.volume(t, "ext4"), l.volume(t, "raw", access(block()))
	pool := func(name string) map[string]string { return map[string]string{"csi-dmthin.dev/pool": name} }
	type request = spec.ValidateVolumeCapabilitiesRequest
	for _, test := range []struct {
		what      string
		of        *spec.Volume
		all       []*spec.VolumeCapability
		more      *request
		confirmed bool
	}{
		{"as it is", ext4, []*spec.VolumeCapability{mount("ext4"), mount("", rwop), mount("", rox)}, &request{}, true},
		{"another file system", ext4, []*spec.VolumeCapability{mount("xfs")}, &request{}, false},
		{"as a block device", ext4, []*spec.VolumeCapability{block()}, &request{}, false},
		{"by many nodes", ext4, []*spec.VolumeCapability{mount("ext4"), mount("", rwx)}, &request{}, false},
		{"a block device", raw, []*spec.VolumeCapability{block(rwop)}, &request{}, true},
		{"no block device", raw, []*spec.VolumeCapability{mount("")}, &request{}, false},
		{"in its pool", ext4, []*spec.VolumeCapability{mount("")}, &request{Parameters: pool("default")}, true},
		{"in another pool", ext4, []*spec.VolumeCapability{mount("")}, &request{Parameters: pool("fast")}, false},
		{"with an unknown parameter", ext4, []*spec.VolumeCapability{mount("")}, &request{Parameters: map[string]string{"k": "v"}}, false},
		{"with a mutable parameter", ext4, []*spec.VolumeCapability{mount("")}, &request{MutableParameters: map[string]string{"k": "v"}}, false},
		{"with a context", ext4, []*spec.VolumeCapability{mount("")}, &request{VolumeContext: map[string]string{"k": "v"}}, false},
	} {
		r := test.more
		r.VolumeId, r.VolumeCapabilities = test.of.GetVolumeId(), test.all
		l.unchanged(t, func() {
			a := got[*spec.ValidateVolumeCapabilitiesResponse](t)(l.ValidateVolumeCapabilities(t.Context(), r))
			equals(t, test.what, a.GetConfirmed() != nil, test.confirmed)
			equals(t, test.what+": message", a.GetMessage() == "", test.confirmed)
			if c := a.GetConfirmed(); c != nil {
				equals(t, "confirmed", len(c.GetVolumeCapabilities()), len(test.all))
				equals(t, "parameters", c.GetParameters(), r.GetParameters())
			}
		})
	}
	for _, id := range append(badIDs(ext4.GetVolumeId()), ext4.GetVolumeId()+"x") {
		_, err := l.ValidateVolumeCapabilities(t.Context(), &request{VolumeId: id, VolumeCapabilities: []*spec.VolumeCapability{mount("")}})
		refuses(t, err, codes.NotFound)
	}
	_, err := l.ValidateVolumeCapabilities(t.Context(), &request{VolumeCapabilities: []*spec.VolumeCapability{mount("")}})
	refuses(t, err, codes.InvalidArgument, "volume_id")
	_, err = l.ValidateVolumeCapabilities(t.Context(), &request{VolumeId: ext4.GetVolumeId()})
	refuses(t, err, codes.InvalidArgument, "volume_capabilities")
}

// What the driver is able to do is the same everywhere, and each call of it is there.
func TestCapabilities(t *testing.T) {
	l := run(t)
	info := got[*spec.GetPluginInfoResponse](t)(l.GetPluginInfo(t.Context(), &spec.GetPluginInfoRequest{}))
	equals(t, "name, version", []string{info.GetName(), info.GetVendorVersion()}, []string{"csi-dmthin.dev", "test"})
	var has []string
	for _, c := range got[*spec.ControllerGetCapabilitiesResponse](t)(l.ControllerGetCapabilities(t.Context(), &spec.ControllerGetCapabilitiesRequest{})).GetCapabilities() {
		has = append(has, c.GetRpc().GetType().String())
	}
	equals(t, "controller", strings.Join(has, " "), "CREATE_DELETE_VOLUME LIST_VOLUMES GET_CAPACITY CREATE_DELETE_SNAPSHOT LIST_SNAPSHOTS CLONE_VOLUME "+
		"EXPAND_VOLUME GET_VOLUME SINGLE_NODE_MULTI_WRITER GET_SNAPSHOT")
	has = nil
	for _, c := range got[*spec.NodeGetCapabilitiesResponse](t)(l.NodeGetCapabilities(t.Context(), &spec.NodeGetCapabilitiesRequest{})).GetCapabilities() {
		has = append(has, c.GetRpc().GetType().String())
	}
	equals(t, "node", strings.Join(has, " "), "STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS EXPAND_VOLUME SINGLE_NODE_MULTI_WRITER GET_VOLUME_HEALTH GET_STORAGE_HEALTH")
	equals(t, "ready", got[*spec.ProbeResponse](t)(l.Probe(t.Context(), &spec.ProbeRequest{})).GetReady().GetValue(), true)
	for what, code := range map[string]codes.Code{
		"publish": code(t, l.ControllerPublishVolume, &spec.ControllerPublishVolumeRequest{VolumeId: "v"}),
		"modify":  code(t, l.ControllerModifyVolume, &spec.ControllerModifyVolumeRequest{VolumeId: "v"}),
		"health":  code(t, l.ControllerGetVolumeHealth, &spec.ControllerGetVolumeHealthRequest{VolumeId: "v"}),
	} {
		equals(t, what, code, codes.Unimplemented)
	}
}
