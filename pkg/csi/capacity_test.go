package csi_test

import (
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

func TestGetCapacity(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	all := l.capacity(t, &spec.GetCapacityRequest{})
	equals(t, "what is free, in steps", all, 8*gib-64*mib)
	pool := func(name string) map[string]string { return map[string]string{"csi-dmthin.dev/pool": name} }
	on := func(node string) *spec.Topology {
		return &spec.Topology{Segments: map[string]string{"csi-dmthin.dev/node": node}}
	}
	for what, test := range map[string]struct {
		r    *spec.GetCapacityRequest
		want int64
	}{
		"an unknown parameter":   {&spec.GetCapacityRequest{Parameters: map[string]string{"csi-dmthin.dev/pol": "fast", "x": "y"}}, all},
		"a value that is wrong":  {&spec.GetCapacityRequest{Parameters: map[string]string{"csi-dmthin.dev/discard": "perhaps"}}, all},
		"the sidecar's":          {&spec.GetCapacityRequest{Parameters: map[string]string{"csi.storage.k8s.io/fstype": "btrfs"}}, all},
		"the default pool":       {&spec.GetCapacityRequest{Parameters: pool("default")}, all},
		"another pool":           {&spec.GetCapacityRequest{Parameters: pool("fast")}, 4*gib - 64*mib},
		"a pool that is nowhere": {&spec.GetCapacityRequest{Parameters: pool("slow")}, 0},
		"this node":              {&spec.GetCapacityRequest{AccessibleTopology: on("node")}, all},
		"another node":           {&spec.GetCapacityRequest{AccessibleTopology: on("other")}, 0},
		"a use":                  {&spec.GetCapacityRequest{VolumeCapabilities: []*spec.VolumeCapability{mount("xfs", rwop)}}, all},
		"a use that nobody has":  {&spec.GetCapacityRequest{VolumeCapabilities: []*spec.VolumeCapability{mount("", rwx)}}, 0},
		"one of two":             {&spec.GetCapacityRequest{VolumeCapabilities: []*spec.VolumeCapability{block(), block(rwx)}}, 0},
		"no use at all":          {&spec.GetCapacityRequest{VolumeCapabilities: []*spec.VolumeCapability{{}}}, 0},
	} {
		l.unchanged(t, func() { equals(t, what, l.capacity(t, test.r), test.want) })
	}

	v := l.volume(t, "v", size(3*gib, 0))
	equals(t, "after a creation", l.capacity(t, &spec.GetCapacityRequest{}), 5*gib)
	l.snapshot(t, "s", v)
	equals(t, "after a snapshot", l.capacity(t, &spec.GetCapacityRequest{}), 5*gib)
	l.volume(t, "clone", fromVolume(v), size(0, 0))
	equals(t, "after a clone", l.capacity(t, &spec.GetCapacityRequest{}), 2*gib)
	l.volume(t, "odd", size(1, 0))
	equals(t, "in steps", l.capacity(t, &spec.GetCapacityRequest{}), 2*gib-64*mib)
	equals(t, "the other pool", l.capacity(t, &spec.GetCapacityRequest{Parameters: pool("fast")}), 4*gib-64*mib)
	must(t, l.deleteVolume(t, v))
	equals(t, "after a deletion", l.capacity(t, &spec.GetCapacityRequest{}), 5*gib-64*mib)

	// What is told can be had.
	l.volume(t, "all", size(5*gib-64*mib, 0))
	equals(t, "then", l.capacity(t, &spec.GetCapacityRequest{}) < 64*mib, true)
}

func TestCapacityOfAFullPool(t *testing.T) {
	t.Parallel()
	l := runOn(t, csitest.NewWorldOf(t.TempDir(), 64*mib), "dm.overprovision_ratio=40")
	equals(t, "before", l.capacity(t, &spec.GetCapacityRequest{}) > gib, true)
	l.fillPool(t)
	equals(t, "full", l.capacity(t, &spec.GetCapacityRequest{}), int64(0))
}

// fillPool writes to a block volume until the pool is full.
func (l *lab) fillPool(t testing.TB) *spec.Volume {
	t.Helper()
	v := l.volume(t, "filler", access(block()))
	must(t, l.stage(t, v, block()))
	if err := l.writes(t, v, gib/l.set(t, 0).BlockSize()); err == nil {
		t.Fatal("the pool is not full")
	}
	equals(t, "mode", l.set(t, 0).Status().Mode, "out_of_data_space")
	return v
}
