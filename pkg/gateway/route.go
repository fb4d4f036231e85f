package gateway

import (
	"context"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// route returns the agent that has a pool.
func (g *Gateway) route(ctx context.Context, key string) (*agent, error) {
	if g.Lost(key) {
		return nil, errLost(key)
	}
	var owners []*agent
	g.await(ctx, func() bool {
		owners = g.fleet.owners(key)
		return len(owners) > 0
	})
	switch len(owners) {
	case 1:
		return owners[0], nil
	case 0:
		at, known := g.fleet.places()[key]
		return nil, errAbsent(key, at, known)
	}
	return nil, errTwice(key, owners)
}

// routeID returns the agent that has what an id names.
func (g *Gateway) routeID(ctx context.Context, k plugin.Kind, field, text string) (*agent, error) {
	if text == "" {
		return nil, errMissing(field)
	}
	i, err := plugin.ParseID(k, text)
	if err != nil {
		return nil, idError(field, err)
	}
	return g.route(ctx, i.Pool)
}

// starting reports whether the gateway has started so lately that agents may still be on
// their way.
func (g *Gateway) starting() bool { return time.Since(g.fleet.started) < g.Patience.Start }

// await waits for something of the fleet, while the gateway is starting. Later whoever is
// absent is so, and nobody waits.
func (g *Gateway) await(ctx context.Context, there func() bool) {
	if !g.starting() {
		there()
		return
	}
	end := time.NewTimer(g.Patience.Hold)
	defer end.Stop()
	for {
		change := g.fleet.change()
		if there() {
			return
		}
		select {
		case <-change:
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
