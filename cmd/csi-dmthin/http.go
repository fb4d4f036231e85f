package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// serveHTTP serves metrics and health:
//
//	/healthz  CSI is answered on our own socket; it knows nothing of pools
//	/readyz   what ready says, with its notes
//	/metrics  Prometheus
func serveHTTP(ctx context.Context, address, endpoint string, ready func() (bool, []string), registry *prometheus.Registry, failed chan<- error) (*http.Server, error) {
	if address == "" {
		return nil, nil
	}
	own, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
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
		ready, notes := ready()
		answerReady(w, ready, notes)
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
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

func answerReady(w http.ResponseWriter, ready bool, notes []string) {
	verdict := "ok"
	if !ready {
		verdict = "not ready"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, line := range append([]string{verdict}, notes...) {
		fmt.Fprintln(w, line)
	}
}
