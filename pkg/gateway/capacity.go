package gateway

import (
	"context"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// GetCapacity tells how large a new volume can be, on a node or anywhere. What is absent
// has no room, so that the scheduler turns elsewhere; while the gateway is starting it
// does not know, and what was published before stays.
func (g *Gateway) GetCapacity(ctx context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	segment, named := r.GetAccessibleTopology().GetSegments()[plugin.TopologyKey]
	if !named {
		return g.capacityAnywhere(ctx, r)
	}
	a, gone := g.awaitNode(ctx, segment)
	switch {
	case a == nil && g.starting():
		return nil, unavailable("the agent of node %s is not connected", gone.node)
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
	name := plugin.PoolOf(r.GetParameters())
	var err error
	g.await(ctx, func() bool {
		err = g.checkPoolName(name)
		return err == nil
	})
	if status.Code(err) == codes.InvalidArgument {
		return g.largestPool(ctx, a, r)
	}
	if err == nil {
		_, err = g.ready(a, name)
	}
	if err == nil {
		err = g.makesNone(a, name)
	}
	if err == nil {
		var answer *csi.GetCapacityResponse
		if answer, err = g.askCapacity(ctx, a, name, r.GetVolumeCapabilities()); status.Code(err) != codes.ResourceExhausted {
			return answer, err
		}
	}
	if status.Code(err) == codes.Unavailable && g.starting() {
		return nil, err
	}
	return noCapacity(), nil
}

func (g *Gateway) largestPool(ctx context.Context, a *agent, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	largest := noCapacity()
	for _, p := range a.pools {
		if _, err := g.ready(a, p.name); err != nil {
			continue
		}
		answer, err := g.askCapacity(ctx, a, p.name, r.GetVolumeCapabilities())
		if err != nil {
			return nil, err
		}
		if answer.GetAvailableCapacity() > largest.GetAvailableCapacity() {
			largest = answer
		}
	}
	return largest, nil
}

// askCapacity asks an agent how much room a pool has.
func (g *Gateway) askCapacity(ctx context.Context, a *agent, name string, to []*csi.VolumeCapability) (*csi.GetCapacityResponse, error) {
	return ask(ctx, g, a, "GetCapacity", name, a.GetCapacity, &csi.GetCapacityRequest{
		Parameters: map[string]string{plugin.ParameterPrefix + "pool": name}, VolumeCapabilities: to,
	})
}

// capacityAnywhere is that of all nodes together, and the largest volume that one has
// room for.
func (g *Gateway) capacityAnywhere(ctx context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	agents := g.fleet.all()
	if g.starting() && len(agents) == 0 {
		return nil, unavailable("no agent is connected")
	}
	sum := noCapacity()
	for _, one := range askAll(ctx, g, agents, func(ctx context.Context, a *agent) (*csi.GetCapacityResponse, error) {
		return g.capacityOf(ctx, a, r)
	}) {
		if one.err != nil {
			return nil, one.err
		}
		sum.AvailableCapacity += one.value.GetAvailableCapacity()
		sum.MaximumVolumeSize.Value = max(sum.MaximumVolumeSize.Value, one.value.GetMaximumVolumeSize().GetValue())
	}
	return sum, nil
}
