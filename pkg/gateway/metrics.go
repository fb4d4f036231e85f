package gateway

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Metrics are what a gateway tells Prometheus.
type Metrics struct {
	gateway    *Gateway
	operations *prometheus.HistogramVec
	agents     *prometheus.Desc
	conflicts  *prometheus.Desc
	absent     *prometheus.Desc
	silent     *prometheus.Desc
	orphans    *prometheus.Desc
}

// NewMetrics registers the metrics of a gateway.
func NewMetrics(r prometheus.Registerer, g *Gateway) *Metrics {
	m := &Metrics{
		gateway:    g,
		operations: plugin.Operations(),
		agents:     prometheus.NewDesc("dmthin_gateway_agents", "Agents that are connected, by their versions.", []string{"version"}, nil),
		conflicts:  prometheus.NewDesc("dmthin_gateway_pool_conflict", "1 for a pool that several nodes have at once.", []string{"key", "nodes"}, nil),
		absent:     prometheus.NewDesc("dmthin_gateway_pool_absent", "1 for a pool that was seen and whose agent is not connected.", []string{"key", "node", "pool"}, nil),
		silent:     prometheus.NewDesc("dmthin_gateway_agent_silent_seconds", "For how long an agent that is connected has had no good answer to a question.", []string{"node"}, nil),
		orphans:    prometheus.NewDesc("dmthin_gateway_orphan_volumes", "Volumes that no PersistentVolume names: see csi-dmthin volumes --orphans.", []string{"node"}, nil),
	}
	r.MustRegister(m.operations, m)
	return m
}

// Describe describes what is read when it is asked for.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.agents
	to <- m.conflicts
	to <- m.absent
	to <- m.silent
	to <- m.orphans
}

// Collect reads it.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	versions := map[string]float64{}
	for _, a := range m.gateway.fleet.all() {
		versions[a.version]++
		if since := a.failing(func(request) bool { return true }); !since.IsZero() {
			to <- prometheus.MustNewConstMetric(m.silent, prometheus.GaugeValue, time.Since(since).Seconds(), a.node)
		}
	}
	for version, count := range versions {
		to <- prometheus.MustNewConstMetric(m.agents, prometheus.GaugeValue, count, version)
	}
	if orphans := m.gateway.orphans.Load(); orphans != nil {
		for node, count := range *orphans {
			to <- prometheus.MustNewConstMetric(m.orphans, prometheus.GaugeValue, count, node)
		}
	}
	for key, nodes := range m.gateway.fleet.conflicts() {
		to <- prometheus.MustNewConstMetric(m.conflicts, prometheus.GaugeValue, 1, key, strings.Join(nodes, " "))
	}
	for _, s := range m.gateway.fleet.everywhere() {
		if !s.left.IsZero() {
			to <- prometheus.MustNewConstMetric(m.absent, prometheus.GaugeValue, 1, s.key, s.node, s.pool)
		}
	}
}
