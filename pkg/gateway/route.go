package gateway

import (
	"context"
	"fmt"
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
		return nil, g.fleet.errAbsent(key)
	}
	return nil, errTwice(key, owners)
}

// routeID returns the agent that has what an id names, and the id.
func (g *Gateway) routeID(ctx context.Context, k plugin.Kind, field, text string) (*agent, plugin.ID, error) {
	if text == "" {
		return nil, plugin.ID{}, errMissing(field)
	}
	i, err := plugin.ParseID(k, text)
	if err != nil {
		return nil, i, idError(field, err)
	}
	a, err := g.route(ctx, i.Pool)
	return a, i, err
}

// starting reports whether the gateway has started so lately that agents may still be on
// their way.
func (g *Gateway) starting() bool { return g.fleet.age() < g.Patience.Start }

// await waits for something of the fleet, while the gateway is starting. Later whoever is
// absent is so, and nobody waits.
func (g *Gateway) await(ctx context.Context, there func() bool) {
	left := g.Patience.Start - g.fleet.age()
	end := time.NewTimer(min(left, g.Patience.Hold))
	defer end.Stop()
	for {
		change := g.fleet.change()
		if there() || left <= 0 {
			return
		}
		select {
		case <-change:
		case <-end.C:
			there()
			return
		case <-ctx.Done():
			return
		}
	}
}

// allKnown waits until the gateway is not starting any more, and is an error if that
// takes too long: who has what it does not know before.
func (g *Gateway) allKnown(ctx context.Context) error {
	g.await(ctx, func() bool { return false })
	if g.starting() {
		return unavailable("the controller has just started, and does not know yet whether all nodes are connected")
	}
	return nil
}

// overdue is the error of a claim that waits for something since a time, zero if that is
// over: it waits on, and then had better move.
func (g *Gateway) overdue(since time.Time, format string, args ...any) error {
	if !g.starting() && !since.IsZero() && time.Since(since) > g.Patience.Absent {
		return exhausted("%s for more than %v", fmt.Sprintf(format, args...), g.Patience.Absent)
	}
	return unavailable(format, args...)
}
