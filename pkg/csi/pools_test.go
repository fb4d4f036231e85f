package csi_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

func TestTwoPools(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	a, b := l.volume(t, "a"), l.volume(t, "b", inPool("fast"))
	equals(t, "other keys", a.GetVolumeId()[:32] != b.GetVolumeId()[:32], true)
	s := l.snapshot(t, "s", b)
	equals(t, "the snapshot's", s.GetSnapshotId()[:32], b.GetVolumeId()[:32])
	_, err := l.trySnapshot(t, "s", a)
	refuses(t, err, codes.AlreadyExists)
	for what, wishes := range map[string][]wish{"default": nil, "fast": {inPool("fast")}} {
		other := map[string]string{"default": "b", "fast": "a"}[what]
		_, err := l.tryVolume(t, other, wishes...)
		refuses(t, err, codes.AlreadyExists, "pool")
	}
	for _, v := range []*spec.Volume{a, b} {
		must(t, l.stage(t, v, mount("")))
		must(t, l.publish(t, v, "pod", mount("")))
		must(t, l.unpublish(t, v, "pod"))
		must(t, l.unstage(t, v))
		must(t, l.deleteVolume(t, v))
	}
	equals(t, "left", []int{len(l.volumes(t)), len(l.snapshots(t))}, []int{0, 1})
}

// A gate is a pool's opening that fails, or waits, until it is told otherwise.
type gate struct {
	open func() (*graphdriver.Driver, error)
	err  chan error // what an attempt answers; nil opens it
}

func (g gate) Open() (*graphdriver.Driver, error) {
	if err := <-g.err; err != nil {
		return nil, err
	}
	return g.open()
}

// startWithGate runs a driver whose second pool, "fast", is behind a gate.
func startWithGate(t *testing.T, w *csitest.World) (*lab, gate) {
	m := w.Process(nil)
	o := w.Options(m)
	g := gate{o.Pools[1].Open, make(chan error)}
	o.Pools[1].Open = g.Open
	d := csi.New(o)
	must(t, o.Pools[0].TryOpen())
	l := &lab{&csitest.Node{Client: csitest.Connect(t, d, klog.Logger{}, nil), Driver: d, Machine: m}, w}
	t.Cleanup(func() { must(t, d.Close()) })
	return l, g
}

// A pool that cannot be opened is alone with that: what is mounted of it can be taken
// down, the other pool serves, and it may be opened later.
func TestAPoolThatCannotBeOpened(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	a, b, raw := l.volume(t, "a"), l.volume(t, "b", inPool("fast")), l.volume(t, "raw", inPool("fast"), access(block()))
	ofB := l.snapshot(t, "of-b", b)
	for _, v := range []*spec.Volume{a, b} {
		must(t, l.stage(t, v, mount("")))
		must(t, l.publish(t, v, "pod-"+device(v.GetVolumeId()), mount("")))
	}
	must(t, l.stage(t, raw, block()))
	must(t, l.publish(t, raw, "raw", block()))
	must(t, l.Driver.Close())

	l, g := startWithGate(t, w)
	fast := l.Driver.Pools[1]
	for _, reason := range []string{"not opened yet", "its disk is missing"} {
		refuse := func(err error) {
			t.Helper()
			refuses(t, err, codes.Unavailable, reason)
		}
		if reason == "its disk is missing" {
			go func() { g.err <- errors.New(reason) }()
			if err := fast.TryOpen(); err == nil || err.Error() != reason {
				t.Fatal(err)
			}
			equals(t, "health", l.storageHealth(t), []string{"STORAGE_UNREACHABLE PoolNotOpen"})
		}
		ready, notOpen := l.Driver.Ready()
		equals(t, "ready", ready, reason != "not opened yet")
		if len(notOpen) != 1 || !strings.HasPrefix(notOpen[0], "pool fast: ") || !strings.Contains(notOpen[0], reason) {
			t.Errorf("ready says %q", notOpen)
		}
		_, err := l.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
		refuse(err)
		_, err = l.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{})
		refuse(err)
		_, err = l.tryVolume(t, "new", inPool("fast"))
		refuse(err)
		equals(t, "capacity", l.capacity(t, &spec.GetCapacityRequest{Parameters: map[string]string{"csi-dmthin.dev/pool": "fast"}}), int64(0))
		for what, c := range map[string]codes.Code{
			"get":             code(t, l.ControllerGetVolume, &spec.ControllerGetVolumeRequest{VolumeId: b.GetVolumeId()}),
			"delete":          code(t, l.DeleteVolume, &spec.DeleteVolumeRequest{VolumeId: b.GetVolumeId()}),
			"delete snapshot": code(t, l.DeleteSnapshot, &spec.DeleteSnapshotRequest{SnapshotId: ofB.GetSnapshotId()}),
			"list by id":      code(t, l.ListSnapshots, &spec.ListSnapshotsRequest{SnapshotId: ofB.GetSnapshotId()}),
			"expand":          code(t, l.ControllerExpandVolume, expandRequest(b, 2*gib)),
			"publish":         code(t, l.NodePublishVolume, publishRequest(l, b, "pod-v-b", mount(""))),
			"health":          code(t, l.NodeGetVolumeHealth, &spec.NodeGetVolumeHealthRequest{VolumeId: b.GetVolumeId()}),
			"restore":         code(t, l.CreateVolume, volumeRequest("new", fromSnapshot(ofB))),
		} {
			equals(t, what, c, codes.Unavailable)
		}
		refuse(l.stage(t, raw, block()))

		// The other pool serves.
		equals(t, "the same", l.volume(t, "a").GetVolumeId(), a.GetVolumeId())
		c := l.volume(t, "c")
		must(t, l.stage(t, c, mount("")))
		must(t, l.unstage(t, c))
		must(t, l.deleteSnapshot(t, l.snapshot(t, "s", c)))
		must(t, l.deleteVolume(t, c))
		equals(t, "answers", got[*spec.ProbeResponse](t)(l.Probe(t.Context(), &spec.ProbeRequest{})).GetReady().GetValue(), true)
	}
	for range 2 {
		must(t, l.unpublish(t, b, "pod-v-b"))
		must(t, l.unstage(t, b))
		must(t, l.unpublish(t, raw, "raw"))
		must(t, l.unstage(t, raw))
	}
	for _, path := range []string{"pod-v-b", "raw", "staging-" + b.GetVolumeId()} {
		_, _, mounted := l.mountedAt(path)
		equals(t, path, mounted, false)
	}

	go func() { g.err <- nil }()
	must(t, fast.TryOpen())
	equals(t, "volumes", len(l.volumes(t)), 3)
	equals(t, "health", l.storageHealth(t), []string(nil))
	isReady(t, l.Driver)
	must(t, l.stage(t, b, mount("")))
	must(t, l.unstage(t, b))
	for _, v := range []*spec.Volume{b, raw} {
		must(t, l.deleteVolume(t, v))
	}
	must(t, l.unpublish(t, a, "pod-v-a"))
	must(t, l.unstage(t, a))
}

// Nobody waits for a pool that takes long to open.
func TestAPoolThatTakesLongToOpen(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l, g := startWithGate(t, w)
	opened := make(chan error, 1)
	go func() { opened <- l.Driver.Pools[1].TryOpen() }()
	served := make(chan struct{})
	go func() {
		defer close(served)
		v, err := l.tryVolume(t, "v")
		if err != nil {
			t.Error(err)
		}
		if err := l.deleteVolume(t, v); err != nil {
			t.Error(err)
		}
		if c := code(t, l.ListVolumes, &spec.ListVolumesRequest{}); c != codes.Unavailable {
			t.Errorf("list: %v", c)
		}
		if c := code(t, l.NodeGetStorageHealth, &spec.NodeGetStorageHealthRequest{}); c != codes.OK {
			t.Errorf("health: %v", c)
		}
	}()
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("it waits")
	}
	g.err <- nil
	must(t, <-opened)
	<-served
	equals(t, "volumes", len(l.volumes(t)), 0)
}

// Open opens each pool when it can be.
func TestOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	o := w.Options(w.Process(nil))
	failing, g := true, gate{o.Pools[0].Open, make(chan error, 1)}
	o.Pools[0].Open = g.Open // hangs
	second := o.Pools[1].Open
	o.Pools[1].Open = func() (*graphdriver.Driver, error) {
		if failing {
			failing = false
			return nil, errors.New("not yet")
		}
		return second()
	}
	d := csi.New(o)
	done := make(chan struct{})
	go func() { defer close(done); d.Open(klog.NewContext(t.Context(), klog.Logger{})) }()
	comesTrue(t, "the second pool, which waits for the first", func() bool { return o.Pools[1].Key() != "" })
	ready, notOpen := d.Ready()
	equals(t, "ready", ready, false)
	equals(t, "not open", notOpen, []string{"pool default: it was not opened yet"})
	g.err <- nil
	<-done
	isReady(t, d)
	must(t, d.Close())
}

func isReady(t testing.TB, d *csi.Driver) {
	t.Helper()
	ready, notOpen := d.Ready()
	equals(t, "ready", ready, true)
	equals(t, "not open", notOpen, []string(nil))
}
