package gateway

import (
	"context"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// GetCapacity tells how large a new volume can be, on a node or anywhere. A node that is
// absent has no room, so that the scheduler turns elsewhere; while the gateway is
// starting it does not know, and what was published before stays.
func (g *Gateway) GetCapacity(ctx context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	segment, named := r.GetAccessibleTopology().GetSegments()[plugin.TopologyKey]
	if !named {
		return g.capacityAnywhere(ctx, r)
	}
	var a *agent
	g.await(ctx, func() bool {
		a, _ = g.fleet.on(segment)
		return a != nil
	})
	switch {
	case a == nil && g.starting():
		return nil, unavailable("the agent of node %s is not connected", segment)
	case a == nil:
		return noCapacity(), nil
	}
	return g.capacityOf(ctx, a, r)
}

func noCapacity() *csi.GetCapacityResponse {
	return &csi.GetCapacityResponse{MaximumVolumeSize: wrapperspb.Int64(0)}
}

// capacityOf asks an agent. A pool that no node has is answered with its largest one, so
// that the volume is asked for, and refused by name.
func (g *Gateway) capacityOf(ctx context.Context, a *agent, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	pool := plugin.PoolOf(r.GetParameters())
	if g.checkPoolName(pool) != nil {
		return g.largestPool(ctx, a, r)
	}
	if key, ok := a.has(pool); !ok || !g.fleet.usable(key) {
		return noCapacity(), nil
	}
	return g.ask(ctx, a, r)
}

func (g *Gateway) largestPool(ctx context.Context, a *agent, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	largest := noCapacity()
	for key, name := range a.pools {
		if !g.fleet.usable(key) {
			continue
		}
		r := &csi.GetCapacityRequest{VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: map[string]string{plugin.ParameterPrefix + "pool": name}}
		answer, err := g.ask(ctx, a, r)
		if err != nil {
			return nil, err
		}
		if answer.GetAvailableCapacity() > largest.GetAvailableCapacity() {
			largest = answer
		}
	}
	return largest, nil
}

// ask asks an agent how much room it has. Who asks has one thread for all nodes, so none
// may hold it for long.
func (g *Gateway) ask(ctx context.Context, a *agent, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, g.Patience.Ask)
	defer cancel()
	r.AccessibleTopology = nil // it is the agent's
	return call(ctx, g, a, "GetCapacity", a.GetCapacity, r)
}

// capacityAnywhere is that of all nodes together, and the largest volume that one has
// room for.
func (g *Gateway) capacityAnywhere(ctx context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if g.starting() && len(g.fleet.all()) == 0 {
		return nil, unavailable("no agent is connected")
	}
	answers, err := askAll(ctx, g, g.fleet.all(), func(ctx context.Context, a *agent) (*csi.GetCapacityResponse, error) {
		return g.capacityOf(ctx, a, &csi.GetCapacityRequest{Parameters: r.GetParameters(), VolumeCapabilities: r.GetVolumeCapabilities()})
	})
	if err != nil {
		return nil, err
	}
	sum := noCapacity()
	for _, one := range answers {
		sum.AvailableCapacity += one.GetAvailableCapacity()
		sum.MaximumVolumeSize.Value = max(sum.MaximumVolumeSize.Value, one.GetMaximumVolumeSize().GetValue())
	}
	return sum, nil
}
