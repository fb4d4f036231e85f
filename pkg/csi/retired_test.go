package csi_test

import (
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A pool that is not in the configuration any more serves what it has and takes no new
// volumes.
func TestRetiredPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.AddPool("old", 4*gib)
	l := runOn(t, w)
	v := l.volume(t, "v", inPool("old"), size(gib, 0))
	s := l.snapshot(t, "s", v)
	must(t, l.stage(t, v, mount("")))
	old := l.Driver.Pools[1]
	old.Retired = true

	inOld := &spec.GetCapacityRequest{Parameters: map[string]string{"csi-dmthin.dev/pool": "old"}}
	equals(t, "capacity", l.capacity(t, inOld), int64(0))
	_, err := l.tryVolume(t, "new", inPool("old"))
	refuses(t, err, codes.ResourceExhausted, "pool old", "configure it again")
	for what, from := range map[string]wish{"a clone": fromVolume(v), "a restore": fromSnapshot(s)} {
		t.Log(what)
		_, err := l.tryVolume(t, "copy", from)
		refuses(t, err, codes.FailedPrecondition, "pool old", "configure it again")
	}
	_, err = l.tryVolume(t, "elsewhere", inPool("nowhere"))
	refuses(t, err, codes.InvalidArgument, "it has default")
	equals(t, "the same", l.volume(t, "v", inPool("old"), size(gib, 0)).GetVolumeId(), v.GetVolumeId())

	second := l.snapshot(t, "second", v)
	must(t, l.publish(t, v, "pod", mount("")))
	_, err = l.ControllerExpandVolume(t.Context(), expandRequest(v, 2*gib))
	must(t, err)
	equals(t, "volumes, snapshots", []int{len(l.volumes(t)), len(l.snapshots(t))}, []int{1, 2})
	must(t, l.unpublish(t, v, "pod"))
	must(t, l.unstage(t, v))
	for _, s := range []*spec.Snapshot{s, second} {
		must(t, l.deleteSnapshot(t, s))
	}
	must(t, l.deleteVolume(t, v))
	must(t, l.deleteVolume(t, v)) // again, for whoever did not hear of it
	isReady(t, l.Driver)
}

// A retired pool without volumes is closed and known: its ids are of what was deleted.
func TestEmptyPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.AddPool("old", 4*gib)
	l := runOn(t, w)
	v := l.volume(t, "v", inPool("old"))
	s := l.snapshot(t, "s", v)
	must(t, l.deleteSnapshot(t, s))
	must(t, l.deleteVolume(t, v))
	secret := l.set(t, 1).PoolSecret()
	kept := l.volume(t, "kept")
	must(t, l.Driver.Close())

	o := w.Options(w.Process(nil))
	old, tries := o.Pools[1], 0
	open := old.Open
	old.Retired, old.Open = true, func() (*graphdriver.Driver, error) {
		if tries++; tries == 1 {
			return nil, &csi.EmptyPool{Secret: secret, Root: "/pools/old"}
		}
		return open()
	}
	l = runWith(t, w, o)
	must(t, old.TryOpen()) // it is not tried again
	equals(t, "tries", tries, 1)
	ready, notOpen := l.Driver.Ready()
	equals(t, "ready", ready, true)
	equals(t, "says", notOpen, []string{"pool old: it is not in the configuration and has no volumes, so it was closed; it is left under /pools/old"})

	equals(t, "it is announced", old.Secret(), secret)
	must(t, l.deleteSnapshot(t, s))
	must(t, l.deleteVolume(t, v))
	must(t, l.unstage(t, v))
	refuses(t, l.stage(t, v, mount("")), codes.NotFound, "pool old is empty")
	equals(t, "volumes", l.volumes(t), []string{kept.GetVolumeId()})
	equals(t, "snapshots", len(l.snapshots(t)), 0)
	equals(t, "health", l.storageHealth(t), []string(nil))
	_, err := l.tryVolume(t, "new", inPool("old"))
	refuses(t, err, codes.ResourceExhausted, "pool old")
	registry := prometheus.NewRegistry()
	csi.NewMetrics(registry, l.Driver, true)
	all := gathered(t, registry)
	equals(t, "up", []bool{all["dmthin_pool_up{pool=default}"] != nil, all["dmthin_pool_up{pool=old}"] != nil}, []bool{true, false})

	must(t, old.While(func() error { return nil })) // something may have been adopted
	equals(t, "tries", tries, 2)
	equals(t, "volumes", len(l.volumes(t)), 1)
	must(t, l.Driver.Close())
}

// runWith runs a driver until the test closes it.
func runWith(t testing.TB, w *csitest.World, o csi.Options) *lab {
	t.Helper()
	d := csi.New(o)
	d.Open(t.Context())
	return &lab{&csitest.Node{Client: csitest.Connect(t, d, klog.Logger{}, nil), Driver: d}, w}
}
