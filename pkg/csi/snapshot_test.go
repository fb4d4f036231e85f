package csi_test

import (
	"fmt"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

func (l *lab) getSnapshot(t testing.TB, s *spec.Snapshot) (*spec.Snapshot, error) {
	r, err := l.GetSnapshot(t.Context(), &spec.GetSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	return r.GetSnapshot(), err
}

func TestCreateSnapshot(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	v, other, elsewhere := l.volume(t, "v"), l.volume(t, "other"), l.volume(t, "elsewhere", inPool("fast"))

	s := l.snapshot(t, "snapshot-1", v)
	equals(t, "source, size, ready", []any{s.GetSourceVolumeId(), s.GetSizeBytes(), s.GetReadyToUse(), s.GetGroupSnapshotId()}, []any{v.GetVolumeId(), gib, true, ""})
	equals(t, "id", strings.HasSuffix(s.GetSnapshotId(), ".s-snapshot-1"), true)
	equals(t, "found", got[*spec.Snapshot](t)(l.getSnapshot(t, s)), s)
	equals(t, "of the other pool", l.snapshot(t, "fast-1", elsewhere).GetSnapshotId()[:32], elsewhere.GetVolumeId()[:32])

	t.Run("again", func(t *testing.T) {
		l.unchanged(t, func() {
			for range 3 {
				equals(t, "the same, with its time", l.snapshot(t, "snapshot-1", v), s)
			}
			for _, of := range []*spec.Volume{other, elsewhere} {
				_, err := l.trySnapshot(t, "snapshot-1", of)
				refuses(t, err, codes.AlreadyExists, v.GetVolumeId())
			}
		})
		_, err := l.ControllerExpandVolume(t.Context(), expandRequest(v, 2*gib))
		must(t, err)
		equals(t, "the size is that of then", l.snapshot(t, "snapshot-1", v), s)
		equals(t, "and of now", l.snapshot(t, "snapshot-2", v).GetSizeBytes(), 2*gib)
	})
	t.Run("what is refused", func(t *testing.T) {
		request := func(change func(*spec.CreateSnapshotRequest)) error {
			r := &spec.CreateSnapshotRequest{Name: "x", SourceVolumeId: v.GetVolumeId()}
			change(r)
			_, err := l.CreateSnapshot(t.Context(), r)
			return err
		}
		l.unchanged(t, func() {
			for _, name := range []string{"", strings.Repeat("n", 129), "a\x01"} {
				refuses(t, request(func(r *spec.CreateSnapshotRequest) { r.Name = name }), codes.InvalidArgument, "name")
			}
			refuses(t, request(func(r *spec.CreateSnapshotRequest) { r.SourceVolumeId = "" }), codes.InvalidArgument, "source_volume_id")
			for _, id := range append(badIDs(v.GetVolumeId()), v.GetVolumeId()+"x", s.GetSnapshotId()) {
				refuses(t, request(func(r *spec.CreateSnapshotRequest) { r.SourceVolumeId = id }), codes.NotFound, "source volume")
			}
			refuses(t, request(func(r *spec.CreateSnapshotRequest) { r.Parameters = map[string]string{"kind": "slow"} }), codes.InvalidArgument, "kind")
			refuses(t, request(func(r *spec.CreateSnapshotRequest) { r.Parameters = map[string]string{"csi-dmthin.dev/pool": "fast"} }), codes.InvalidArgument)
			refuses(t, request(func(r *spec.CreateSnapshotRequest) {
				r.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: []*spec.Topology{{Segments: map[string]string{"csi-dmthin.dev/node": "other"}}}}
			}), codes.ResourceExhausted)
		})
		must(t, request(func(r *spec.CreateSnapshotRequest) {
			r.Parameters, r.Secrets = map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "daily"}, map[string]string{"k": "v"}
		}))
	})
	t.Run("of a volume that is mounted", func(t *testing.T) {
		must(t, l.stage(t, v, mount("")))
		mounted := l.snapshot(t, "mounted", v)
		restored := l.volume(t, "restored", fromSnapshot(mounted), size(0, 0))
		must(t, l.stage(t, restored, mount("")))
		must(t, l.unstage(t, restored))
		must(t, l.unstage(t, v))
	})
	t.Run("get", func(t *testing.T) {
		for _, id := range append(badIDs(s.GetSnapshotId()), s.GetSnapshotId()+"x", v.GetVolumeId()) {
			_, err := l.getSnapshot(t, &spec.Snapshot{SnapshotId: id})
			refuses(t, err, codes.NotFound)
		}
		_, err := l.getSnapshot(t, nil)
		refuses(t, err, codes.InvalidArgument, "snapshot_id")
		must(t, l.deleteSnapshot(t, s))
		_, err = l.getSnapshot(t, s)
		refuses(t, err, codes.NotFound)
	})
	t.Run("a volume and a snapshot of one name", func(t *testing.T) {
		same := l.snapshot(t, "v", v)
		must(t, l.deleteSnapshot(t, same))
		got[*spec.Volume](t)(l.tryVolume(t, "v", size(0, 0)))
	})
}

// The time of a snapshot is that of its creation, after a restart too.
func TestSnapshotTime(t *testing.T) {
	l := run(t)
	v := l.volume(t, "v")
	var last int64
	for i := range 3 {
		s := l.snapshot(t, fmt.Sprint("s", i), v)
		if s.GetCreationTime().GetSeconds() <= last || s.GetCreationTime().CheckValid() != nil {
			t.Errorf("time %v, after %d", s.GetCreationTime(), last)
		}
		last = s.GetCreationTime().GetSeconds()
	}
	before := l.snapshot(t, "s2", v)
	must(t, l.Driver.Close())
	l.Node = l.world.Run(t)
	equals(t, "after a restart", l.snapshot(t, "s2", v), before)
}

// A snapshot that a full pool refuses is FAILED_PRECONDITION, and there is nothing to
// delete of it. It works when there is room.
func TestCreateSnapshotOnAFullPool(t *testing.T) {
	t.Parallel()
	l := runOn(t, csitest.NewWorldOf(t.TempDir(), 64*mib), "dm.overprovision_ratio=40")
	v := l.volume(t, "v")
	s := l.snapshot(t, "before", v)
	filler := l.fillPool(t)
	for _, of := range []*spec.Volume{v, filler} {
		_, err := l.trySnapshot(t, "x", of)
		refuses(t, err, codes.FailedPrecondition, "room")
	}
	equals(t, "the same again", l.snapshot(t, "before", v), s)
	equals(t, "snapshots", l.snapshots(t), []string{s.GetSnapshotId()})
	must(t, l.deleteSnapshot(t, &spec.Snapshot{SnapshotId: v.GetVolumeId()[:33] + "s-x"}))
	must(t, l.unstage(t, filler))
	must(t, l.deleteVolume(t, filler)) // deleting is never refused for want of room
	l.snapshot(t, "x", v)
}
