package csi

import (
	"context"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// GetCapacity tells how large a new volume can be. It fails on nothing that is asked:
// CreateVolume refuses what it does not know, by name.
func (d *Driver) GetCapacity(_ context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	room := int64(0)
	p, err := d.pools.named(plugin.PoolOf(r.GetParameters()))
	if err == nil && plugin.Includes(r.GetAccessibleTopology(), d.Node) && suitsAny(r.GetVolumeCapabilities()) {
		room = p.room()
	}
	return &csi.GetCapacityResponse{AvailableCapacity: room, MaximumVolumeSize: wrapperspb.Int64(room)}, nil
}

func suitsAny(all []*csi.VolumeCapability) bool {
	if len(all) == 0 {
		return true
	}
	_, err := parseCapabilities(all)
	return err == nil
}

// room returns how large a new volume can be, in steps: each other value is written
// down by the orchestrator for each class and node.
func (p *Pool) room() int64 {
	if p.Retired {
		return 0
	}
	room, _ := ask(p, func(layers *graphdriver.Driver) int64 {
		room, _ := layers.Room() // none in a pool that takes no changes
		size, _ := layers.DataSize()
		return inSteps(room, size)
	})
	return room
}

// leastStep is the least step of a capacity, and divides the others.
const leastStep = 64 << 20

// inSteps rounds the room of a pool down, to a hundredth of the pool or less.
func inSteps(room, pool int64) int64 {
	step := max(pool/100/leastStep, 1) * leastStep
	return room / step * step
}
