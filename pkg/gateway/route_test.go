package gateway_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A volume's whole life, each call of it by way of the agent that has the pool.
func TestCallsGoToTheNodeOfTheirPool(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na, nb := c.node("na", 8*gib), c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	v, at := g.made(t, request("one", gib, "nb", "na"))
	if at != "nb" || !strings.HasPrefix(v.GetVolumeId(), nb.key("default")+".") || len(volumesOf(t, na)) != 0 {
		t.Fatalf("the volume is %v", v)
	}
	ctx := t.Context()
	snapshot, err := g.CreateSnapshot(ctx, &spec.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.GetVolumeId()})
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot.GetSnapshot().GetSnapshotId()
	if _, err := g.ControllerExpandVolume(ctx, &spec.ControllerExpandVolumeRequest{VolumeId: v.GetVolumeId(), CapacityRange: &spec.CapacityRange{RequiredBytes: 2 * gib}}); err != nil {
		t.Fatal(err)
	}
	got, err := g.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
	if err != nil || got.GetVolume().GetCapacityBytes() != 2*gib {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err := g.GetSnapshot(ctx, &spec.GetSnapshotRequest{SnapshotId: s}); err != nil || got.GetSnapshot().GetSourceVolumeId() != v.GetVolumeId() {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err := g.ValidateVolumeCapabilities(ctx, &spec.ValidateVolumeCapabilitiesRequest{
		VolumeId: v.GetVolumeId(), VolumeCapabilities: request("", 0).GetVolumeCapabilities(),
	}); err != nil || got.GetConfirmed() == nil {
		t.Fatalf("%v, %v", got, err)
	}
	for _, by := range []*spec.ListSnapshotsRequest{{}, {SnapshotId: s}, {SourceVolumeId: v.GetVolumeId()}} {
		if got, err := g.ListSnapshots(ctx, by); err != nil || len(got.GetEntries()) != 1 {
			t.Fatalf("%v: %v, %v", by, got, err)
		}
	}
	for range 2 { // again is no error
		if _, err := g.DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: s}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
			t.Fatal(err)
		}
	}
	if left := volumesOf(t, nb); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// What is made from something is where that is, whatever the scheduler prefers.
func TestCopiesAreMadeBesideTheirSource(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib)
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	v, _ := g.made(t, request("one", gib, "nb"))
	clone := request("clone", gib, "na", "nb")
	clone.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{
		Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: v.GetVolumeId()},
	}}
	copied, at := g.made(t, clone)
	if at != "nb" || copied.GetContentSource() == nil {
		t.Errorf("the clone is %v", copied)
	}
	clone.Name = "elsewhere"
	clone.AccessibilityRequirements = request("", 0, "na").GetAccessibilityRequirements()
	_, err := g.CreateVolume(t.Context(), clone)
	refuses(t, err, codes.InvalidArgument, "node nb", "allowedTopologies")
	clone.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{
		Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: "what is that"},
	}}
	_, err = g.CreateVolume(t.Context(), clone)
	refuses(t, err, codes.NotFound, "content source", "what is that")
}

// Without requirements it goes where there is most room; and to where it is, if it is.
func TestImmediateVolumes(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	small, large := c.node("na", 4*gib), c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	if _, at := g.made(t, request("one", 6*gib)); at != "nb" {
		t.Errorf("it is on %s", at)
	}
	if _, at := g.made(t, request("two", 3*gib)); at != "na" {
		t.Errorf("it is on %s", at)
	}
	// The controller that has made it is gone, and so is what it knew.
	g.stop()
	g = c.controller()
	g.knows(t, "na", "nb")
	if _, at := g.made(t, request("two", 3*gib)); at != "na" {
		t.Errorf("it is on %s, too", at)
	}
	if len(volumesOf(t, small)) != 1 || len(volumesOf(t, large)) != 1 {
		t.Error("there are more volumes than were asked for")
	}
	_, err := g.CreateVolume(t.Context(), request("three", 7*gib))
	refuses(t, err, codes.ResourceExhausted, "no node has room")
}

// The pool's name decides whether another node may help, or nobody can.
func TestPoolsByName(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib)
	fast := csitest.NewWorldOf(t.TempDir(), 8*gib)
	fast.AddPool("fast", 16*gib)
	c.nodeOn("nb", fast)
	g.knows(t, "na", "nb")
	if _, at := g.made(t, inPool(request("one", gib), "fast")); at != "nb" {
		t.Errorf("it is on %s", at)
	}
	_, err := g.CreateVolume(t.Context(), inPool(request("two", gib, "na"), "fast"))
	refuses(t, err, codes.ResourceExhausted, "node na", "fast")
	_, err = g.CreateVolume(t.Context(), inPool(request("two", gib, "na"), "fats"))
	refuses(t, err, codes.InvalidArgument, "fats", "default, fast")

	room := func(node string, parameters map[string]string) int64 {
		t.Helper()
		answer, err := g.GetCapacity(t.Context(), &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology(node), Parameters: parameters})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetAvailableCapacity()
	}
	if got := room("na", map[string]string{"csi-dmthin.dev/pool": "fast"}); got != 0 {
		t.Errorf("a pool that a node lacks has %d bytes", got)
	}
	// So that the volume is asked for, and refused by name.
	if got := room("nb", map[string]string{"csi-dmthin.dev/pool": "fats"}); got < 12*gib {
		t.Errorf("a pool that nobody has has %d bytes: want those of the largest", got)
	}
	if got := room("na", map[string]string{"csi-dmthin.dev/poll": "fast"}); got < 4*gib {
		t.Errorf("with a key that is misspelt there are %d bytes", got)
	}
	anywhere, err := g.GetCapacity(t.Context(), &spec.GetCapacityRequest{})
	if err != nil || anywhere.GetAvailableCapacity() <= anywhere.GetMaximumVolumeSize().GetValue() || anywhere.GetMaximumVolumeSize().GetValue() < 4*gib {
		t.Errorf("anywhere: %v, %v", anywhere, err)
	}
}

// While an agent is away, what names its pool waits, and what does not goes elsewhere.
func TestAbsentNode(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Absent = time.Second })
	na, _ := c.node("na", 8*gib), c.node("nb", 4*gib)
	g.knows(t, "na", "nb")
	v, _ := g.made(t, request("one", gib, "na"))
	na.stop()
	g.knows(t, "nb")
	gone := time.Now()
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"delete": func() error {
			_, err := g.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
			return err
		},
		"snapshot": func() error {
			_, err := g.CreateSnapshot(ctx, &spec.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.GetVolumeId()})
			return err
		},
		"get": func() error {
			_, err := g.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
			return err
		},
		"snapshots": func() error {
			_, err := g.ListSnapshots(ctx, &spec.ListSnapshotsRequest{SourceVolumeId: v.GetVolumeId()})
			return err
		},
		"volumes": func() error { _, err := g.ListVolumes(ctx, &spec.ListVolumesRequest{}); return err },
		"delete snapshot": func() error {
			_, err := g.DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: na.key("default") + ".s-s"})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) { refuses(t, call(), codes.Unavailable, "na", "default") })
	}
	answer, err := g.GetCapacity(ctx, &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology("na")})
	if err != nil || answer.GetAvailableCapacity() != 0 || answer.GetMaximumVolumeSize() == nil {
		t.Errorf("an absent node has %v, %v", answer, err)
	}
	_, err = g.CreateVolume(ctx, request("two", gib, "na", "nb"))
	refuses(t, err, codes.Unavailable, "na")
	if time.Since(gone) > time.Second {
		t.Error("it was waited for somebody who is known to be absent")
	}
	until(t, func() error {
		_, err := g.CreateVolume(ctx, request("two", gib, "na", "nb"))
		if spec := codes.ResourceExhausted; err == nil || !strings.Contains(err.Error(), spec.String()) {
			return err
		}
		return nil
	})
	// It was only away.
	c.connect(na)
	g.knows(t, "na", "nb")
	if _, err := g.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
		t.Error(err)
	}
}

// A gateway that has just started holds calls, since agents are on their way.
func TestStart(t *testing.T) {
	c := newCluster(t)
	slow := func(o *gateway.Options) {
		o.Patience = gateway.Patience{Start: 1500 * time.Millisecond, Hold: 400 * time.Millisecond, Absent: time.Millisecond}
	}
	g := c.controller(slow)
	na := c.node("na", 8*gib)
	g.knows(t, "na")
	v, _ := g.made(t, request("one", gib, "na"))
	na.stop()
	g.stop()

	g = c.controller(slow)
	begin := time.Now()
	_, err := g.GetCapacity(t.Context(), &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology("na")})
	refuses(t, err, codes.Unavailable, "na") // not 0: what was published stays
	if held := time.Since(begin); held < 400*time.Millisecond {
		t.Errorf("it was held for %v", held)
	}
	_, err = g.CreateVolume(t.Context(), request("two", gib, "na"))
	refuses(t, err, codes.Unavailable, "na")
	_, err = g.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	refuses(t, err, codes.Unavailable)

	g.stop()
	g = c.controller(slow)
	held := make(chan error, 1)
	go func() {
		_, err := g.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
		held <- err
	}()
	time.Sleep(50 * time.Millisecond)
	c.connect(na)
	if err := <-held; err != nil {
		t.Errorf("a call that an agent came for in time: %v", err)
	}
}

// Identity and capabilities need no agent.
func TestWithoutAgents(t *testing.T) {
	g := newCluster(t).controller()
	if p, err := g.Probe(t.Context(), &spec.ProbeRequest{}); err != nil || !p.GetReady().GetValue() {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := g.GetPluginInfo(t.Context(), &spec.GetPluginInfoRequest{}); err != nil || p.GetName() != plugin.Name || p.GetVendorVersion() != "1.3" {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := g.ControllerGetCapabilities(t.Context(), &spec.ControllerGetCapabilitiesRequest{}); err != nil || len(p.GetCapabilities()) == 0 {
		t.Errorf("%v, %v", p, err)
	}
	for _, id := range []string{"fake-vol-id", "../../etc", strings.Repeat("x", 200)} {
		if _, err := g.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: id}); err != nil {
			t.Errorf("delete %q: %v", id, err)
		}
		_, err := g.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: id})
		refuses(t, err, codes.NotFound)
	}
	for _, err := range []error{
		second(g.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{})),
		second(g.CreateVolume(t.Context(), &spec.CreateVolumeRequest{})),
		second(g.CreateSnapshot(t.Context(), &spec.CreateSnapshotRequest{})),
		second(g.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: -1})),
	} {
		refuses(t, err, codes.InvalidArgument)
	}
	_, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: "invalid-token"})
	refuses(t, err, codes.Aborted)
	_, err = g.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: strings.Repeat("0", 32) + ".v-x"})
	refuses(t, err, codes.Unavailable, "csi-dmthin-lost")
}

func second[T any](_ T, err error) error { return err }

// Pages over several pools of several nodes are complete and in order, whatever their
// size.
func TestLists(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	w := csitest.NewWorldOf(t.TempDir(), 8*gib)
	w.AddPool("other", 8*gib)
	c.nodeOn("na", w)
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	var want []string
	for i, name := range strings.Fields("a 0 b c d e f g h i j k") {
		where, pool := []string{"na", "nb"}[i%2], []string{"default", "default", "other", "default"}[i%4]
		v, _ := g.made(t, inPool(request(name, 1<<20, where), pool))
		want = append(want, v.GetVolumeId())
		if _, err := g.CreateSnapshot(t.Context(), &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: v.GetVolumeId()}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for _, size := range []int32{0, 1, 2, 3, 5, 12, 100} {
		var got, snapshots []string
		for token, pages := "", 0; ; pages++ {
			page, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: size, StartingToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 && len(page.GetEntries()) > int(size) {
				t.Fatalf("a page of %d has %d", size, len(page.GetEntries()))
			}
			for _, e := range page.GetEntries() {
				got = append(got, e.GetVolume().GetVolumeId())
			}
			if token = page.GetNextToken(); token == "" || pages > 30 {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v", size, got, want)
		}
		for token := ""; ; {
			page, err := g.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{MaxEntries: size, StartingToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.GetEntries() {
				snapshots = append(snapshots, e.GetSnapshot().GetSnapshotId())
			}
			if token = page.GetNextToken(); token == "" {
				break
			}
		}
		if len(snapshots) != len(want) || !slices.IsSorted(snapshots) {
			t.Errorf("pages of %d snapshots: %v", size, snapshots)
		}
	}
}

// A pool that was given up has nothing any more.
func TestLostPool(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na := c.node("na", 8*gib)
	g.knows(t, "na")
	v, _ := g.made(t, request("one", gib, "na"))
	c.lost.Store(na.key("default"), true)
	ctx := t.Context()
	if _, err := g.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
		t.Error(err)
	}
	if _, err := g.DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: na.key("default") + ".s-x"}); err != nil {
		t.Error(err)
	}
	_, err := g.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
	refuses(t, err, codes.NotFound, "csi-dmthin-lost")
	if l, err := g.ListSnapshots(ctx, &spec.ListSnapshotsRequest{SourceVolumeId: v.GetVolumeId()}); err != nil || len(l.GetEntries()) > 0 {
		t.Errorf("%v, %v", l, err)
	}
	if l, err := g.ListVolumes(ctx, &spec.ListVolumesRequest{}); err != nil || len(l.GetEntries()) > 0 {
		t.Errorf("%v, %v", l, err)
	}
	if answer, err := g.GetCapacity(ctx, &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology("na")}); err != nil || answer.GetAvailableCapacity() != 0 {
		t.Errorf("%v, %v", answer, err)
	}
	_, err = g.CreateVolume(ctx, request("two", gib, "na"))
	if err == nil {
		t.Error("a volume was made in a pool that was given up")
	}
	if got := volumesOf(t, na); !slices.Equal(got, []string{"one"}) {
		t.Errorf("the pool has %v: what is in it stays", got)
	}
}
