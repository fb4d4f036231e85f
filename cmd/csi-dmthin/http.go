package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
)

// serveHTTP serves metrics and health:
//
//	/healthz  the driver answers on its own socket; it knows nothing of pools
//	/readyz   every pool is open, or known not to open: then it says why
//	/metrics  Prometheus
func (c *config) serveHTTP(ctx context.Context, driver *csi.Driver, registry *prometheus.Registry, failed chan<- error) (*http.Server, error) {
	if c.HTTP == "" {
		return nil, nil
	}
	own, err := grpc.NewClient(c.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		_, err := csipb.NewIdentityClient(own).Probe(ctx, &csipb.ProbeRequest{})
		answerHealth(w, err)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, notOpen := driver.Ready()
		answerReady(w, ready, notOpen)
	})
	l, err := listenHTTP(ctx, c.HTTP)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { failed <- server.Serve(l) }()
	return server, nil
}

func answerHealth(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func answerReady(w http.ResponseWriter, ready bool, notOpen []string) {
	verdict := "ok"
	if !ready {
		verdict = "not ready"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, line := range append([]string{verdict}, notOpen...) {
		fmt.Fprintln(w, line)
	}
}
