package csi_test

import (
	"context"
	"os"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// A verb of a story is a call, and what it wants of the world afterwards.
type verb struct {
	what string
	call func(*lab, context.Context) (proto.Message, error)
}

// volumeCalled and snapshotCalled are named by their ids, which follow from their names.
func (l *lab) volumeCalled(name string) *spec.Volume {
	return &spec.Volume{VolumeId: l.Driver.Pools[0].Key() + ".v-" + name}
}

func (l *lab) snapshotCalled(name string) *spec.Snapshot {
	return &spec.Snapshot{SnapshotId: l.Driver.Pools[0].Key() + ".s-" + name}
}

func creates(name string, wishes ...func(*lab) wish) verb {
	return verb{"create " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		r := volumeRequest(name, size(8*mib, 0))
		for _, w := range wishes {
			w(l)(r)
		}
		return l.CreateVolume(ctx, r)
	}}
}

func snapshots(name, of string) verb {
	return verb{"snapshot " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.CreateSnapshot(ctx, &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: l.volumeCalled(of).GetVolumeId()})
	}}
}

func deletes(name string) verb {
	return verb{"delete " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: l.volumeCalled(name).GetVolumeId()})
	}}
}

func deletesSnapshot(name string) verb {
	return verb{"delete snapshot " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: l.snapshotCalled(name).GetSnapshotId()})
	}}
}

func expands(name string, to int64) verb {
	return verb{"expand " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.ControllerExpandVolume(ctx, expandRequest(l.volumeCalled(name), to))
	}}
}

func nodeExpands(name string) verb {
	return verb{"node expand " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{VolumeId: l.volumeCalled(name).GetVolumeId(), VolumePath: l.path("pod-" + name)})
	}}
}

func stages(name string, c *spec.VolumeCapability) verb {
	return verb{"stage " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		v := l.volumeCalled(name)
		if err := os.MkdirAll(l.staging(v), 0o750); err != nil {
			return nil, err
		}
		return l.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v), VolumeCapability: c})
	}}
}

func publishes(name string, c *spec.VolumeCapability) verb {
	return verb{"publish " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.NodePublishVolume(ctx, publishRequest(l, l.volumeCalled(name), "pod-"+name, c))
	}}
}

func unpublishes(name string) verb {
	return verb{"unpublish " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		return l.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: l.volumeCalled(name).GetVolumeId(), TargetPath: l.path("pod-" + name)})
	}}
}

func unstages(name string) verb {
	return verb{"unstage " + name, func(l *lab, ctx context.Context) (proto.Message, error) {
		v := l.volumeCalled(name)
		return l.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v)})
	}}
}

func ofVolume(name string) func(*lab) wish {
	return func(l *lab) wish { return fromVolume(l.volumeCalled(name)) }
}

func ofSnapshot(name string) func(*lab) wish {
	return func(l *lab) wish { return fromSnapshot(l.snapshotCalled(name)) }
}

func asBlock(*lab) wish { return access(block()) }

// story is what a volume, its copies and its neighbour live through.
var story = []verb{
	creates("a"), stages("a", mount("ext4")), publishes("a", mount("ext4")), snapshots("s", "a"), creates("b", ofSnapshot("s")), creates("c", ofVolume("a")),
	creates("raw", asBlock), stages("raw", block()), publishes("raw", block()),
	expands("a", 24*mib), nodeExpands("a"), stages("c", mount("")), unpublishes("a"), unstages("a"), deletes("a"),
	unstages("c"), deletesSnapshot("s"), deletes("b"), unpublishes("raw"), unstages("raw"), deletes("raw"),
}

// prepared returns a world whose pool is made.
func prepared(t testing.TB) *csitest.World {
	t.Helper()
	w := csitest.NewWorldOf(t.TempDir(), 128*mib)
	l := &lab{w.Start(t), w}
	must(t, l.Driver.Close())
	return w
}

// telling is a story that is being told.
type telling struct {
	*lab
	t testing.TB
}

// revive ends what is left of a process, and begins another.
func (s *telling) revive() {
	s.world.Kill()
	_ = s.Driver.Close() // it is dead
	s.Node = s.world.Start(s.t)
}

// until calls a verb until it answers, with a new process where one has died, and the pool
// opened anew where its journal asks for that.
func (s *telling) until(v verb) proto.Message {
	s.t.Helper()
	for range 5 {
		answer, err := v.call(s.lab, s.t.Context())
		switch {
		case err == nil:
			return answer
		case s.Machine.Dead():
			s.revive()
		case strings.Contains(err.Error(), "must be opened anew"):
			refuses(s.t, err, codes.Unavailable)
			must(s.t, s.Driver.Pools[0].While(func() error { return nil }))
		}
	}
	_, err := v.call(s.lab, s.t.Context())
	s.t.Fatalf("%s: %v", v.what, err)
	return nil
}

// ends fails unless the world is as the story ends: one volume is there, nothing is
// mounted, nothing is active, and the pool has what is known.
func (s *telling) ends() {
	s.t.Helper()
	equals(s.t, "volumes", s.volumes(s.t), []string{s.volumeCalled("c").GetVolumeId()})
	equals(s.t, "snapshots", len(s.snapshots(s.t)), 0)
	must(s.t, s.stage(s.t, s.volumeCalled("c"), mount("ext4")))
	must(s.t, s.unstage(s.t, s.volumeCalled("c")))
	comesTrue(s.t, "what is pending", func() bool {
		st := s.set(s.t, 0).Status()
		return st.OpenOperations == 0 && st.DeferredDeletedDeviceCount == 0
	})
	st := s.set(s.t, 0).Status()
	equals(s.t, "lost, orphans, distrust", []any{len(st.Ghosts), len(st.Orphans), st.ReadOnly}, []any{0, 0, ""})
	equals(s.t, "thin devices", s.thins(s.t), 2) // the label, and c
	must(s.t, s.Driver.Close())
	devices, err := dm.List(s.world.Kernel(), "", "")
	must(s.t, err)
	equals(s.t, "devices", len(devices), 0)
}

// A process that is killed between any two calls is no loss: the next one gives the same
// answers.
func TestRestartBetweenCalls(t *testing.T) {
	w := prepared(t)
	s := &telling{&lab{w.Start(t), w}, t}
	for _, v := range story {
		answer := s.until(v)
		s.revive()
		equals(t, v.what+": after a restart", s.until(v), answer)
	}
	s.ends()
}

// Each step of the story fails in each way, and the story ends as it would have: what is
// called again after an error, or after a restart, is done. It is a slice of the steps,
// unless CSI_DMTHIN_TORTURE says all.
func TestRestartWithinCalls(t *testing.T) {
	ground, stride := prepared(t), 16
	if os.Getenv("CSI_DMTHIN_TORTURE") == "all" {
		stride = 1
	}
	for mode := range dmfault.Mode(dmfault.NumModes) {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			for at := int(mode) * stride / dmfault.NumModes; ; at += stride {
				w := ground.Clone(t.TempDir())
				plan := &dmfault.Plan{At: at, Mode: mode}
				s := &telling{&lab{w.Start(t), w}, t}
				s.Machine.Break(plan)
				for _, v := range story {
					s.until(v)
				}
				s.Machine.Break(nil)
				if s.Machine.Dead() || plan.Crashed() { // after the last answer
					s.revive()
				}
				if s.ends(); t.Failed() {
					t.Fatalf("%s at %d: %s", mode, at, plan.Hit())
				}
				if plan.Hit() == "" {
					t.Logf("the story has no more than %d steps", at)
					break
				}
			}
		})
	}
}

// After a power cut nothing is mounted. What was answered is there, and is staged and
// published anew, or taken down, as the kubelet likes.
func TestReboot(t *testing.T) {
	w := prepared(t)
	s := &telling{&lab{w.Start(t), w}, t}
	a, raw := s.volume(t, "a", size(8*mib, 0)), s.volume(t, "raw", size(8*mib, 0), access(block()))
	up := func() {
		t.Helper()
		for v, c := range map[*spec.Volume]*spec.VolumeCapability{a: mount("ext4"), raw: block()} {
			must(t, s.stage(t, v, c))
			must(t, s.publish(t, v, device(v.GetVolumeId()), c))
		}
	}
	down := func() {
		t.Helper()
		for _, v := range []*spec.Volume{a, raw} {
			must(t, s.unpublish(t, v, device(v.GetVolumeId())))
			equals(t, "target", s.exists(device(v.GetVolumeId())), false)
			must(t, s.unstage(t, v))
		}
	}
	for _, after := range []func(){up, down} {
		up()
		snapshot := s.snapshot(t, "s", a)
		w.PowerCut(func(dmsim.Page) bool { return false })
		_ = s.Driver.Close() // it is dead
		s.Node = w.Start(t)
		_, _, mounted := s.mountedAt(device(a.GetVolumeId()))
		equals(t, "mounted", mounted, false)
		equals(t, "volumes and snapshots", []int{len(s.volumes(t)), len(s.snapshots(t))}, []int{2, 1})
		equals(t, "the snapshot", s.snapshot(t, "s", a), snapshot)
		after()
	}
	must(t, s.Driver.Close())
}
