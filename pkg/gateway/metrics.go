package gateway

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Metrics are what a gateway tells Prometheus.
type Metrics struct {
	gateway    *Gateway
	operations *prometheus.HistogramVec
	agents     *prometheus.Desc
	conflicts  *prometheus.Desc
	absent     *prometheus.Desc
}

// NewMetrics registers the metrics of a gateway.
func NewMetrics(r prometheus.Registerer, g *Gateway) *Metrics {
	m := &Metrics{
		gateway:    g,
		operations: plugin.Operations(),
		agents:     prometheus.NewDesc("dmthin_gateway_agents", "Agents that are connected, by their versions.", []string{"version"}, nil),
		conflicts:  prometheus.NewDesc("dmthin_gateway_pool_conflict", "1 for a pool that several nodes have at once.", []string{"key", "nodes"}, nil),
		absent:     prometheus.NewDesc("dmthin_gateway_pool_absent", "1 for a pool that was seen and whose agent is not connected.", []string{"key", "node", "pool"}, nil),
	}
	r.MustRegister(m.operations, m)
	return m
}

// Describe describes what is read when it is asked for.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.agents
	to <- m.conflicts
	to <- m.absent
}

// Collect reads it.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	versions := map[string]float64{}
	for _, a := range m.gateway.fleet.all() {
		versions[a.version]++
	}
	for version, count := range versions {
		to <- prometheus.MustNewConstMetric(m.agents, prometheus.GaugeValue, count, version)
	}
	for key, nodes := range m.gateway.fleet.conflicts() {
		to <- prometheus.MustNewConstMetric(m.conflicts, prometheus.GaugeValue, 1, key, strings.Join(nodes, " "))
	}
	for key, at := range m.gateway.fleet.places() {
		if len(m.gateway.fleet.owners(key)) == 0 {
			to <- prometheus.MustNewConstMetric(m.absent, prometheus.GaugeValue, 1, key, at.node, at.pool)
		}
	}
}

// Intercept returns what surrounds each call: it is counted, and one line says what
// became of it.
func Intercept(m *Metrics) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		begin, log := time.Now(), klog.FromContext(ctx).WithValues("method", path.Base(info.FullMethod))
		if about := subjectOf(r); about != "" {
			log = log.WithValues("about", about)
		}
		answer, err := handle(klog.NewContext(ctx, log), r)
		code, took := status.Code(err), time.Since(begin)
		if m != nil {
			m.operations.WithLabelValues(info.FullMethod, code.String()).Observe(took.Seconds())
		}
		switch {
		case code == codes.Internal || code == codes.Unknown:
			log.Error(err, "Answered", "code", code.String(), "took", took)
		case err != nil:
			log.Info("Answered", "code", code.String(), "took", took, "err", status.Convert(err).Message())
		default:
			log.V(4).Info("Answered", "took", took)
		}
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
}

// subjectOf returns what a request is about. Nothing else of it is logged.
func subjectOf(r any) string {
	switch r := r.(type) {
	case interface{ GetVolumeId() string }:
		return r.GetVolumeId()
	case interface{ GetSnapshotId() string }:
		return r.GetSnapshotId()
	case interface{ GetName() string }:
		return r.GetName()
	}
	return ""
}
