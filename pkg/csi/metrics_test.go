package csi_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

// A metric is what a gauge shows, or how much a histogram has counted.
type metric struct {
	value float64
	count uint64
}

// gathered returns the metrics of a registry, by name and labels.
func gathered(t testing.TB, r *prometheus.Registry) map[string]*metric {
	t.Helper()
	families, err := r.Gather()
	must(t, err)
	all := map[string]*metric{}
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s says nothing of itself", f.GetName())
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = &metric{m.GetGauge().GetValue(), m.GetHistogram().GetSampleCount()}
		}
	}
	return all
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := csitest.NewWorldOf(t.TempDir(), 256*mib)
	w.AddPool("fast", 256*mib)
	m := w.Process(nil)
	o := w.Options(m)
	g := gate{o.Pools[1].Open, make(chan error, 1)}
	o.Pools[1].Open = g.Open
	d := csi.New(o)
	must(t, o.Pools[0].TryOpen())
	t.Cleanup(func() { must(t, d.Close()) })
	r, perVolume := prometheus.NewRegistry(), prometheus.NewRegistry()
	metrics := csi.NewMetrics(r, d, false)
	csi.NewMetrics(perVolume, d, true)
	l := &lab{&csitest.Node{Client: csitest.Connect(t, d, klog.Logger{}, metrics.ObserveCall), Driver: d, Machine: m}, w}

	v := l.volume(t, "v", access(block()), size(64*mib, 0))
	must(t, l.stage(t, v, block()))
	must(t, l.writes(t, v, 4))
	l.snapshot(t, "s", v)
	metrics.ObserveIoctl("message", time.Millisecond)
	metrics.ObserveTool("mkfs", "ext4", time.Second)
	must(t, l.set(t, 0).AddDevice("somebody-elses", "", map[string]string{"fs": "none", "size": "1M"}))

	blockSize := float64(l.set(t, 0).BlockSize())
	status := l.set(t, 0).Status()
	all := gathered(t, r)
	for name, want := range map[string]float64{
		"dmthin_pool_up{pool=default}":                          1,
		"dmthin_pool_up{pool=fast}":                             0,
		"dmthin_pool_mode{mode=rw,pool=default}":                1,
		"dmthin_pool_mode{mode=ro,pool=default}":                0,
		"dmthin_pool_mode{mode=fail,pool=default}":              0,
		"dmthin_pool_mode{mode=out_of_data_space,pool=default}": 0,
		"dmthin_pool_needs_check{pool=default}":                 0,
		"dmthin_pool_untrusted{pool=default}":                   0,
		"dmthin_pool_pending_deletions{pool=default}":           0,
		"dmthin_pool_open_operations{pool=default}":             0,
		"dmthin_pool_devices{pool=default}":                     3,
		"dmthin_pool_orphans{pool=default}":                     0,
		"dmthin_pool_lost_devices{pool=default}":                0,
		"dmthin_pool_quarantined{pool=default}":                 0,
		"dmthin_pool_snapshots_total{pool=default}":             1,
		"dmthin_pool_provisioned_bytes{pool=default}":           float64(65 * mib),
		"dmthin_pool_overprovisioning_ratio{pool=default}":      65. / 256,
		"dmthin_pool_used_bytes{of=data,pool=default}":          float64(status.Data.Used),
		"dmthin_pool_used_bytes{of=metadata,pool=default}":      float64(status.Metadata.Used),
		"dmthin_pool_total_bytes{of=data,pool=default}":         float64(256 * mib),
		"dmthin_pool_total_bytes{of=metadata,pool=default}":     float64(status.Metadata.Total),
	} {
		if all[name] == nil {
			t.Errorf("there is no %s in %v", name, slices.Sorted(maps.Keys(all)))
			continue
		}
		equals(t, name, all[name].value, want)
	}
	for name, count := range map[string]uint64{
		"csi_plugin_operations_seconds{driver_name=csi-dmthin.dev,grpc_status_code=OK,method_name=/csi.v1.Controller/CreateVolume}":   1,
		"csi_plugin_operations_seconds{driver_name=csi-dmthin.dev,grpc_status_code=OK,method_name=/csi.v1.Controller/CreateSnapshot}": 1,
		"dmthin_ioctl_seconds{command=message}":  1,
		"dmthin_tool_seconds{fs=ext4,tool=mkfs}": 1,
	} {
		equals(t, name, all[name].count, count)
	}
	for name := range all {
		if strings.Contains(name, "volume=") {
			t.Errorf("%s: nobody asked for it", name)
		}
	}

	must(t, l.set(t, 0).MeasureExclusive(t.Context()))
	all = gathered(t, perVolume)
	for name, want := range map[string]float64{
		"dmthin_volume_virtual_bytes{pool=default,volume=v-v}":   float64(64 * mib),
		"dmthin_volume_mapped_bytes{pool=default,volume=v-v}":    4 * blockSize,
		"dmthin_volume_exclusive_bytes{pool=default,volume=v-v}": 0, // the snapshot has them, too
		"dmthin_volume_mapped_bytes{pool=default,volume=s-s}":    4 * blockSize,
	} {
		equals(t, name, all[name].value, want)
	}
	if all["dmthin_volume_virtual_bytes{pool=default,volume=somebody-elses}"] != nil {
		t.Error("what is no volume counts as one")
	}

	// It costs the pool nothing, in whatever state it is.
	time.Sleep(1200 * time.Millisecond) // until the ends of operations are written
	flushed := l.flushes()
	for range 5 {
		gathered(t, r)
		gathered(t, perVolume)
	}
	equals(t, "flushes", l.flushes(), flushed)
	l.unchanged(t, func() { gathered(t, perVolume) })
	g.err <- nil
	must(t, o.Pools[1].TryOpen())
	equals(t, "the other is up", gathered(t, r)["dmthin_pool_up{pool=fast}"].value, 1.)
	disk := w.DiskAt(csitest.MetadataDisk("fast"))
	disk.Fail(true, true)
	_, err := l.tryVolume(t, "x", inPool("fast"), size(mib, 0))
	equals(t, "refused", err != nil, true)
	equals(t, "it has failed", gathered(t, perVolume)["dmthin_pool_mode{mode=fail,pool=fast}"].value, 1.)
	disk.Fail(false, false)
}
