package csi_test

import (
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

func (l *lab) stats(t testing.TB, v *spec.Volume, path string) ([]*spec.VolumeUsage, error) {
	r, err := l.NodeGetVolumeStats(t.Context(), &spec.NodeGetVolumeStatsRequest{VolumeId: v.GetVolumeId(), VolumePath: path})
	return r.GetUsage(), err
}

func TestNodeGetVolumeStats(t *testing.T) {
	l := run(t)
	v, raw := l.volume(t, "v"), l.volume(t, "raw", access(block()))
	_, err := l.stats(t, v, l.path("pod"))
	refuses(t, err, codes.NotFound)
	must(t, l.stage(t, v, mount("")))
	must(t, l.publish(t, v, "pod", mount("")))
	must(t, l.stage(t, raw, block()))
	must(t, l.publish(t, raw, "raw", block()))

	for _, path := range []string{l.path("pod"), l.staging(v)} {
		usage := got[[]*spec.VolumeUsage](t)(l.stats(t, v, path))
		equals(t, "figures", len(usage), 2)
		equals(t, "bytes", usage[0], &spec.VolumeUsage{Unit: spec.VolumeUsage_BYTES, Total: gib, Used: mib, Available: gib - mib})
		equals(t, "inodes", usage[1], &spec.VolumeUsage{Unit: spec.VolumeUsage_INODES, Total: 1 << 16, Used: 11, Available: 1<<16 - 11})
	}
	blockUsage := func(blocks int64) {
		t.Helper()
		used := blocks * l.set(t, 0).BlockSize()
		usage := got[[]*spec.VolumeUsage](t)(l.stats(t, raw, l.path("raw")))
		equals(t, "figures", len(usage), 1)
		equals(t, "bytes", usage[0], &spec.VolumeUsage{Unit: spec.VolumeUsage_BYTES, Total: gib, Used: used, Available: gib - used})
	}
	blockUsage(0)
	must(t, l.writes(t, raw, 5))
	blockUsage(5)

	l.unchanged(t, func() {
		for what, path := range map[string]string{"relative": "some/path", "nowhere": l.path("x"), "another's": l.path("raw"), "outside": "/", "odd": "..", "a link": "/proc/self/cwd"} {
			_, err := l.stats(t, v, path)
			refuses(t, err, codes.NotFound)
			_ = what
		}
		for _, id := range append(badIDs(v.GetVolumeId()), v.GetVolumeId()+"x") {
			_, err := l.stats(t, &spec.Volume{VolumeId: id}, l.path("pod"))
			refuses(t, err, codes.NotFound)
		}
		_, err = l.stats(t, nil, l.path("pod"))
		refuses(t, err, codes.InvalidArgument, "volume_id")
		_, err = l.stats(t, v, "")
		refuses(t, err, codes.InvalidArgument, "volume_path")
	})
}

// A stuck host's file systems do not answer until they are let go of.
type stuck struct {
	csitest.Host
	asked, letGo chan struct{}
}

func (h stuck) Usage(path string) (filesystem.Usage, error) {
	h.asked <- struct{}{}
	<-h.letGo
	return h.Host.Usage(path)
}

// A file system that does not answer holds up neither its volume nor more than one
// caller.
func TestStatsOfAHungFileSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.Process(nil)
	host := stuck{csitest.Host{Machine: m}, make(chan struct{}, 9), make(chan struct{})}
	o := w.Options(m)
	o.Host = host
	d := csi.New(o)
	must(t, o.Pools[0].TryOpen())
	defer func() { must(t, d.Close()) }()
	l := &lab{&csitest.Node{Client: csitest.Connect(t, d, klog.Logger{}, nil), Driver: d, Machine: m}, w}
	v, other := l.volume(t, "v"), l.volume(t, "other")
	for _, v := range []*spec.Volume{v, other} {
		must(t, l.stage(t, v, mount("")))
	}
	begin := time.Now()
	_, err := l.stats(t, v, l.staging(v))
	refuses(t, err, codes.DeadlineExceeded, "does not answer")
	if took := time.Since(begin); took < time.Second || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	for range 3 {
		_, err := l.stats(t, v, l.staging(v))
		refuses(t, err, codes.Aborted, "does not answer")
	}
	equals(t, "asked", len(host.asked), 1)
	must(t, l.publish(t, v, "pod", mount(""))) // nobody waits for it
	must(t, l.unpublish(t, v, "pod"))
	must(t, l.unstage(t, v))
	must(t, l.stage(t, v, mount("")))

	close(host.letGo)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		usage, err := l.stats(t, v, l.staging(v))
		if err == nil {
			equals(t, "figures", len(usage), 2)
			break
		}
		if refuses(t, err, codes.Aborted); time.Now().After(deadline) {
			t.Fatal("it never answers again")
		}
	}
	got[[]*spec.VolumeUsage](t)(l.stats(t, other, l.staging(other)))
}
