package gateway_test

import (
	"context"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// wrong is an agent that answers what it was not asked.
type wrong struct {
	spec.UnimplementedControllerServer
	volumes   *spec.ListVolumesResponse
	volume    *spec.Volume
	snapshots *spec.ListSnapshotsResponse
	snapshot  *spec.Snapshot
}

func (w *wrong) ListVolumes(context.Context, *spec.ListVolumesRequest) (*spec.ListVolumesResponse, error) {
	return w.volumes, nil
}

func (w *wrong) ControllerGetVolume(context.Context, *spec.ControllerGetVolumeRequest) (*spec.ControllerGetVolumeResponse, error) {
	return &spec.ControllerGetVolumeResponse{Volume: w.volume}, nil
}

func (w *wrong) CreateVolume(context.Context, *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	return &spec.CreateVolumeResponse{Volume: w.volume}, nil
}

func (w *wrong) ListSnapshots(context.Context, *spec.ListSnapshotsRequest) (*spec.ListSnapshotsResponse, error) {
	return w.snapshots, nil
}

func (w *wrong) GetSnapshot(context.Context, *spec.GetSnapshotRequest) (*spec.GetSnapshotResponse, error) {
	return &spec.GetSnapshotResponse{Snapshot: w.snapshot}, nil
}

func (w *wrong) CreateSnapshot(context.Context, *spec.CreateSnapshotRequest) (*spec.CreateSnapshotResponse, error) {
	return &spec.CreateSnapshotResponse{Snapshot: w.snapshot}, nil
}

// A lying agent is connected with a pool of its own, and w is what it answers.
func lying(t *testing.T) (g *controller, w *wrong, own string) {
	t.Helper()
	c := newCluster(t)
	g, w = c.controller(), &wrong{}
	c.node("na", 8*gib, serves(w), func(a *gateway.Agent) {
		a.Pools = func() []gateway.Pool { return []gateway.Pool{{Name: "default", Secret: "s", Open: true}} }
	})
	g.knows(t, "na")
	return g, w, plugin.KeyOf("s") + "."
}

// An agent that lists what makes no sense ends neither the controller nor in a list that
// looks whole.
func TestListsThatMakeNoSense(t *testing.T) {
	g, w, own := lying(t)
	foreign := strings.Repeat("f", 32) + "."
	entry := func(id string) *spec.ListVolumesResponse_Entry {
		return &spec.ListVolumesResponse_Entry{Volume: &spec.Volume{VolumeId: id}}
	}
	for why, answer := range map[string]*spec.ListVolumesResponse{
		"nothing":     {Entries: []*spec.ListVolumesResponse_Entry{{}}},
		"no id":       {Entries: []*spec.ListVolumesResponse_Entry{entry("")}},
		"no id here":  {Entries: []*spec.ListVolumesResponse_Entry{entry(own + "v-a"), entry("../../etc")}},
		"twice":       {Entries: []*spec.ListVolumesResponse_Entry{entry(own + "v-a"), entry(own + "v-a")}},
		"backwards":   {Entries: []*spec.ListVolumesResponse_Entry{entry(own + "v-b"), entry(own + "v-a")}},
		"for ever":    {Entries: []*spec.ListVolumesResponse_Entry{entry(own + "v-a")}, NextToken: "again"},
		"and nothing": {NextToken: "again"},
		"too many":    {Entries: []*spec.ListVolumesResponse_Entry{entry(own + "v-a"), entry(own + "v-b"), entry(own + "v-c")}},
	} {
		t.Run(why, func(t *testing.T) {
			w.volumes = answer
			_, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: 2})
			refuses(t, err, codes.Internal, "node na", "not to be believed")
		})
	}
	// What it has behind its own is another pool's, whose turn it is not.
	w.volumes = &spec.ListVolumesResponse{Entries: []*spec.ListVolumesResponse_Entry{entry(own + "v-a"), entry(foreign + "v-a")}}
	page, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	if err != nil || len(page.GetEntries()) != 1 || page.GetNextToken() != "" {
		t.Errorf("%v, %v", page, err)
	}
}

// An agent is asked about one thing, and answers about another.
func TestAnswersAboutOthers(t *testing.T) {
	g, w, own := lying(t)
	ctx := t.Context()
	other := strings.Repeat("f", 32) + "."
	for _, id := range []string{"", own + "v-other", other + "v-one", "nonsense"} {
		w.volume = &spec.Volume{VolumeId: id}
		_, err := g.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: own + "v-one"})
		refuses(t, err, codes.Internal, "node na", "not to be believed")
		_, err = g.CreateVolume(ctx, request("one", gib, "na"))
		refuses(t, err, codes.Internal, "node na", "not to be believed")
	}
	w.volume = &spec.Volume{VolumeId: own + "v-one", AccessibleTopology: []*spec.Topology{plugin.Topology("nb")}}
	got, err := g.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: own + "v-one"})
	if err != nil || got.GetVolume().GetAccessibleTopology()[0].GetSegments()[plugin.TopologyKey] != "na" {
		t.Errorf("%v, %v", got, err) // where it is is not for the agent to say
	}

	for _, s := range []*spec.Snapshot{
		{}, {SnapshotId: own + "s-other", SourceVolumeId: own + "v-one"}, {SnapshotId: other + "s-one", SourceVolumeId: own + "v-one"},
		{SnapshotId: own + "s-one", SourceVolumeId: own + "v-other"},
	} {
		w.snapshot, w.snapshots = s, &spec.ListSnapshotsResponse{Entries: []*spec.ListSnapshotsResponse_Entry{{Snapshot: s}}}
		_, err := g.CreateSnapshot(ctx, &spec.CreateSnapshotRequest{Name: "one", SourceVolumeId: own + "v-one"})
		refuses(t, err, codes.Internal, "node na", "not to be believed")
		if s.GetSnapshotId() != own+"s-one" {
			_, err = g.GetSnapshot(ctx, &spec.GetSnapshotRequest{SnapshotId: own + "s-one"})
			refuses(t, err, codes.Internal, "node na", "not to be believed")
		}
		_, err = g.ListSnapshots(ctx, &spec.ListSnapshotsRequest{SnapshotId: own + "s-one", SourceVolumeId: own + "v-one"})
		refuses(t, err, codes.Internal, "node na", "not to be believed")
	}
}

// One call that panics ends no other.
func TestDefect(t *testing.T) {
	_, err := gateway.Intercept(nil)(t.Context(), &spec.ProbeRequest{}, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("oh") })
	refuses(t, err, codes.Internal, "oh")
}
