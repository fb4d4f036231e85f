package csi_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A brake is a machine that holds its next step, of those whose turn it is, until it is let
// go of.
type brake struct {
	csitest.Machine

	mu      sync.Mutex
	armed   bool
	reached chan struct{}
	release chan struct{}
}

// next makes the next step stop.
func (b *brake) next() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed, b.reached, b.release = true, make(chan struct{}), make(chan struct{})
}

func (b *brake) stop(ctx context.Context) error {
	b.mu.Lock()
	armed := b.armed
	b.armed = false
	b.mu.Unlock()
	if !armed {
		return nil
	}
	close(b.reached)
	<-b.release
	return ctx.Err() // as what is killed with its caller
}

func (b *brake) Do(r dm.Request) (dm.Reply, error) {
	if r.Command == dm.TargetMsg || r.Command == dm.TableLoad || r.Command == dm.DevRemove {
		_ = b.stop(context.Background())
	}
	return b.Machine.Do(r)
}

func (b *brake) Make(ctx context.Context, i dm.Info, t filesystem.Type, o filesystem.MakeOptions) error {
	if err := b.stop(ctx); err != nil {
		return err
	}
	return b.Machine.Make(ctx, i, t, o)
}

func (b *brake) GrowFS(ctx context.Context, i dm.Info, path string, t filesystem.Type) error {
	if err := b.stop(ctx); err != nil {
		return err
	}
	return b.Machine.GrowFS(ctx, i, path, t)
}

func (b *brake) Mount(i dm.Info, path string, t filesystem.Type, o filesystem.MountOptions) error {
	_ = b.stop(context.Background())
	return b.Machine.Mount(i, path, t, o)
}

func (b *brake) Unmount(ctx context.Context, path string, lazy bool) error {
	if err := b.stop(ctx); err != nil {
		return err
	}
	return b.Machine.Unmount(ctx, path, lazy)
}

// brakedHost unmounts with the brake.
type brakedHost struct {
	csitest.Host
	*brake
}

func (h brakedHost) Unmount(ctx context.Context, path string) error {
	return h.brake.Unmount(ctx, path, false)
}

func (h brakedHost) MountedAt(path string) (csi.Mounted, bool, error) { return h.Host.MountedAt(path) }
func (h brakedHost) MountPoints(d dm.DevNo) ([]string, error)         { return h.Host.MountPoints(d) }
func (h brakedHost) Bind(source, target string, readOnly bool) error {
	_ = h.stop(context.Background())
	return h.Host.Bind(source, target, readOnly)
}

// braked runs a driver on a machine with a brake. Each call's code goes to codes.
func braked(t *testing.T) (l *lab, b *brake, codes chan string) {
	w := newWorld(t)
	m := w.Process(nil)
	b, codes = &brake{Machine: csitest.Machine{Machine: m}}, make(chan string, 99)
	o := w.OptionsOn(b, brakedHost{csitest.Host{Machine: m}, b})
	d := csi.New(o)
	must(t, o.Pools[0].TryOpen())
	c := csitest.Connect(t, d, klog.Logger{}, func(_, code string, _ time.Duration) { codes <- code })
	t.Cleanup(func() { must(t, d.Close()) })
	return &lab{&csitest.Node{Client: c, Driver: d, Machine: m}, w}, b, codes
}

// Whoever gives up in the midst of a call ends nothing: what was begun is carried out,
// and who repeats the call joins it: for as long as he waits, and to its answer.
func TestCallerGivesUp(t *testing.T) {
	l, b, answered := braked(t)
	var v *spec.Volume
	var s *spec.Snapshot
	for _, step := range []struct {
		what string
		do   func(ctx context.Context) (proto.Message, error)
		keep func(proto.Message)
	}{
		{"create", func(ctx context.Context) (proto.Message, error) {
			return l.CreateVolume(ctx, volumeRequest("v"))
		}, func(m proto.Message) { v = m.(*spec.CreateVolumeResponse).GetVolume() }},
		{"stage", func(ctx context.Context) (proto.Message, error) {
			l.dir(t, "staging-"+v.GetVolumeId())
			return l.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v), VolumeCapability: mount("")})
		}, nil},
		{"publish", func(ctx context.Context) (proto.Message, error) {
			return l.NodePublishVolume(ctx, publishRequest(l, v, "pod", mount("")))
		}, nil},
		{"snapshot", func(ctx context.Context) (proto.Message, error) {
			return l.CreateSnapshot(ctx, &spec.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.GetVolumeId()})
		}, func(m proto.Message) { s = m.(*spec.CreateSnapshotResponse).GetSnapshot() }},
		{"expand", func(ctx context.Context) (proto.Message, error) {
			return l.ControllerExpandVolume(ctx, expandRequest(v, 2*gib))
		}, nil},
		{"node expand", func(ctx context.Context) (proto.Message, error) {
			return l.NodeExpandVolume(ctx, &spec.NodeExpandVolumeRequest{VolumeId: v.GetVolumeId(), VolumePath: l.path("pod")})
		}, nil},
		{"unpublish", func(ctx context.Context) (proto.Message, error) {
			return l.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), TargetPath: l.path("pod")})
		}, nil},
		{"unstage", func(ctx context.Context) (proto.Message, error) {
			return l.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v)})
		}, nil},
		{"delete snapshot", func(ctx context.Context) (proto.Message, error) {
			return l.DeleteSnapshot(ctx, &spec.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()})
		}, nil},
		{"delete", func(ctx context.Context) (proto.Message, error) {
			return l.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
		}, nil},
	} {
		b.next()
		ctx, giveUp := context.WithCancelCause(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := step.do(ctx)
			gone <- err
		}()
		select {
		case <-b.reached:
		case err := <-gone:
			t.Fatalf("%s: it does not stop: %v", step.what, err)
		}
		giveUp(errors.New("the caller has gone"))
		refuses(t, <-gone, codes.Canceled)
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := step.do(short)
		cancel()
		refuses(t, err, codes.DeadlineExceeded)
		if code := <-answered; code != codes.DeadlineExceeded.String() && code != codes.Canceled.String() { // by who is faster
			t.Errorf("%s: meanwhile: %s", step.what, code)
		}
		joined := make(chan proto.Message, 1)
		go func() {
			answer, _ := step.do(t.Context())
			joined <- answer
		}()
		time.Sleep(10 * time.Millisecond) // it may come too late, and is a call of its own then
		close(b.release)
		for range 2 {
			equals(t, step.what+": in the end", <-answered, codes.OK.String())
		}
		answer, err := step.do(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		again, err := step.do(t.Context())
		must(t, err)
		for range 2 {
			equals(t, step.what+": again", <-answered, codes.OK.String())
		}
		equals(t, step.what+": the same again", again, answer)
		equals(t, step.what+": who has joined", <-joined, answer)
		if step.keep != nil {
			step.keep(answer)
		}
	}
	equals(t, "thin devices", l.thins(t), 1)
	equals(t, "the kubelet's directory", l.exists("pod"), false)
}
