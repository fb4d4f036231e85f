package csi

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Metrics are what a driver tells Prometheus. Those of pools are read when they are asked
// for, and cost the pools nothing: no flush, no commit.
type Metrics struct {
	operations *prometheus.HistogramVec
	ioctls     *prometheus.HistogramVec
	tools      *prometheus.HistogramVec
}

// NewMetrics registers the metrics of a driver.
func NewMetrics(r prometheus.Registerer, d *Driver, perVolume bool) *Metrics {
	m := &Metrics{
		operations: plugin.Operations(),
		ioctls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dmthin_ioctl_seconds", Help: "How long device-mapper took, by command.",
			Buckets: prometheus.ExponentialBuckets(25e-6, 4, 10),
		}, []string{"command"}),
		tools: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dmthin_tool_seconds", Help: "How long mkfs, fsck and the growing of file systems took.",
			Buckets: prometheus.ExponentialBuckets(.01, 4, 8),
		}, []string{"tool", "fs"}),
	}
	r.MustRegister(m.operations, m.ioctls, m.tools, &poolCollector{d, perVolume})
	return m
}

// ObserveCall counts a CSI call.
func (m *Metrics) ObserveCall(method, code string, took time.Duration) {
	m.operations.WithLabelValues(method, code).Observe(took.Seconds())
}

// ObserveIoctl counts a request to device-mapper.
func (m *Metrics) ObserveIoctl(command string, took time.Duration) {
	m.ioctls.WithLabelValues(command).Observe(took.Seconds())
}

// ObserveTool counts the run of a tool on a file system.
func (m *Metrics) ObserveTool(tool, fs string, took time.Duration) {
	m.tools.WithLabelValues(tool, fs).Observe(took.Seconds())
}

// poolCollector reads the pools when it is asked.
type poolCollector struct {
	driver    *Driver
	perVolume bool
}

func poolDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dmthin_"+name, help, append([]string{"pool"}, labels...), nil)
}

var (
	poolUp           = poolDesc("pool_up", "1 if the pool is open.")
	poolMode         = poolDesc("pool_mode", "1 for the mode that the pool is in.", "mode")
	poolNeedsCheck   = poolDesc("pool_needs_check", "1 if the pool's metadata needs a check.")
	poolReadOnly     = poolDesc("pool_untrusted", "1 if state and pool disagree, and nothing is changed until it is adopted.")
	poolPending      = poolDesc("pool_pending_deletions", "Volumes and snapshots whose deletion has begun.")
	poolOpen         = poolDesc("pool_open_operations", "Creations of which nobody knows yet whether they happened.")
	poolDevices      = poolDesc("pool_devices", "Volumes and snapshots.")
	poolOrphans      = poolDesc("pool_orphans", "Thin devices that nobody here has made.")
	poolLost         = poolDesc("pool_lost_devices", "Volumes and snapshots that the pool has lost.")
	poolQuarantined  = poolDesc("pool_quarantined", "Thin devices that may not be used.")
	poolSnapshots    = poolDesc("pool_snapshots_total", "Snapshots taken so far, of which a pool can have 2^24.")
	poolProvisioned  = poolDesc("pool_provisioned_bytes", "Sizes of volumes, together.")
	poolOverProvided = poolDesc("pool_overprovisioning_ratio", "Sizes of volumes, by the size of the pool's data.")
	poolUsed         = poolDesc("pool_used_bytes", "What is used of the pool.", "of")
	poolTotal        = poolDesc("pool_total_bytes", "What the pool has.", "of")
	volumeVirtual    = poolDesc("volume_virtual_bytes", "A volume's size.", "volume")
	volumeMapped     = poolDesc("volume_mapped_bytes", "What a volume has of the pool, shared with others or not.", "volume")
	volumeExclusive  = poolDesc("volume_exclusive_bytes", "What a volume has of the pool alone, as of the last look.", "volume")
)

func (c *poolCollector) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		poolUp, poolMode, poolNeedsCheck, poolReadOnly, poolPending, poolOpen, poolDevices, poolOrphans, poolLost,
		poolQuarantined, poolSnapshots, poolProvisioned, poolOverProvided, poolUsed, poolTotal,
		volumeVirtual, volumeMapped, volumeExclusive,
	} {
		to <- desc
	}
}

func (c *poolCollector) Collect(to chan<- prometheus.Metric) {
	var all sync.WaitGroup
	for _, p := range c.driver.pools {
		all.Go(func() {
			for _, m := range p.collect(c.perVolume) {
				to <- m
			}
		})
	}
	all.Wait()
}

// collect returns a pool's metrics; of one that does not answer, that it is not up.
func (p *Pool) collect(perVolume bool) (all []prometheus.Metric) {
	if p.isEmpty() {
		return nil
	}
	all, err := ask(p, func(layers *graphdriver.Driver) []prometheus.Metric { return p.read(layers, perVolume) })
	up := prometheus.MustNewConstMetric(poolUp, prometheus.GaugeValue, number(err == nil), p.Name)
	return append(all, up)
}

func (p *Pool) read(layers *graphdriver.Driver, perVolume bool) (all []prometheus.Metric) {
	tell := func(desc *prometheus.Desc, value float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{p.Name}, labels...)...))
	}
	collectStatus(layers.DeviceSet.Status(), tell)
	if !perVolume {
		return all
	}
	usage, _ := layers.Usage() // without figures, what is known is told
	devices, _ := layers.Devices("", int(^uint(0)>>1))
	for _, device := range devices {
		if plugin.KindOf(device.Name) == "" {
			continue
		}
		tell(volumeVirtual, float64(device.Size), device.Name)
		if u, ok := usage[device.Name]; ok {
			tell(volumeMapped, float64(u.Mapped), device.Name)
			if u.ExclusiveKnown {
				tell(volumeExclusive, float64(u.Exclusive), device.Name)
			}
		}
	}
	return all
}

func collectStatus(st *deviceset.Status, tell func(*prometheus.Desc, float64, ...string)) {
	for _, mode := range []string{"rw", "out_of_data_space", "ro", "fail", "error", "unavailable"} {
		tell(poolMode, number(strings.EqualFold(st.Mode, mode)), mode)
	}
	tell(poolNeedsCheck, number(st.NeedsCheck))
	tell(poolReadOnly, number(st.ReadOnly != ""))
	tell(poolPending, float64(st.DeferredDeletedDeviceCount))
	tell(poolOpen, float64(st.OpenOperations))
	tell(poolDevices, float64(st.Devices))
	tell(poolOrphans, float64(len(st.Orphans)))
	tell(poolLost, float64(len(st.Ghosts)))
	tell(poolQuarantined, float64(len(st.Quarantined)))
	tell(poolSnapshots, float64(st.Snapshots))
	tell(poolProvisioned, float64(st.ProvisionedBytes))
	tell(poolOverProvided, st.OverProvisioning)
	for of, usage := range map[string]deviceset.DiskUsage{"data": st.Data, "metadata": st.Metadata} {
		tell(poolUsed, float64(usage.Used), of)
		tell(poolTotal, float64(usage.Total), of)
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
