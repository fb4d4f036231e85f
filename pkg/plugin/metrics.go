package plugin

import "github.com/prometheus/client_golang/prometheus"

// Operations counts and times CSI calls, by method and code, under the name and in the
// buckets that plugins have.
func Operations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:        "csi_plugin_operations_seconds",
		Help:        "How long CSI calls took, by their code.",
		Buckets:     []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
		ConstLabels: prometheus.Labels{"driver_name": Name},
	}, []string{"method_name", "grpc_status_code"})
}
