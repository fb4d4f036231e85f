package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

// Who is not known is an orphan, on whatever page it is; and in the metrics when it was seen
// twice.
func TestOrphans(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib)
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	kept, _ := g.made(t, request("kept", gib, "na"))
	lost, _ := g.made(t, request("lost", gib, "nb"))
	var mu sync.Mutex
	known := map[string]bool{kept.GetVolumeId(): true}
	ask := func(context.Context) (map[string]bool, error) {
		mu.Lock()
		defer mu.Unlock()
		ids := map[string]bool{}
		for id := range known {
			ids[id] = true
		}
		return ids, nil
	}
	found, err := gateway.Orphans(t.Context(), g.gateway.ListVolumes, ask)
	if want := (gateway.Orphan{ID: lost.GetVolumeId(), Node: "nb", Bytes: gib}); err != nil || len(found) != 1 || found[0] != want {
		t.Errorf("%v, %v", found, err)
	}
	_, err = gateway.Orphans(t.Context(), g.gateway.ListVolumes, func(context.Context) (map[string]bool, error) { return nil, errors.New("the API server is away") })
	if err == nil || !strings.Contains(err.Error(), "API server") {
		t.Errorf("unknown names are %v", err)
	}

	registry := prometheus.NewRegistry()
	gateway.NewMetrics(registry, g.gateway)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { g.gateway.WatchOrphans(ctx, 10*time.Millisecond, ask) })
	defer all.Wait()
	defer cancel()
	says := func(want float64) {
		t.Helper()
		until(t, func() error {
			families, err := registry.Gather()
			have := 0.0
			for _, f := range families {
				if f.GetName() == "dmthin_gateway_orphan_volumes" {
					have = f.GetMetric()[0].GetGauge().GetValue()
				}
			}
			if have != want {
				err = errors.Join(err, fmt.Errorf("there are %v orphans, want %v", have, want))
			}
			return err
		})
	}
	says(1)
	mu.Lock()
	known[lost.GetVolumeId()] = true
	mu.Unlock()
	says(0)
}
