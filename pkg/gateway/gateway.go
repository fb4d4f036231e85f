package gateway

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/namelock"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Options are what a Gateway is made of.
type Options struct {
	Version string
	// Review tells whose token an agent has shown.
	Review Reviewer
	// Lost reports whether an operator has given a pool up, by its key.
	Lost func(key string) bool
	// Patience is how long it waits for what; the zero of a field is its default.
	Patience Patience
}

// Patience is how long a gateway waits.
type Patience struct {
	Start  time.Duration // after its start, until it knows who is absent: 30 s
	Hold   time.Duration // a call at that time, for the agent: 5 s
	Absent time.Duration // until new volumes are sent elsewhere: 60 s
	Admit  time.Duration // for an agent to introduce itself: 10 s
	Review time.Duration // between two looks at an agent's token: 10 min
	Ask    time.Duration // for an answer about a name or a capacity, of many agents: 5 s
}

func (p Patience) orDefault() Patience {
	for d, otherwise := range map[*time.Duration]time.Duration{
		&p.Start: 30 * time.Second, &p.Hold: 5 * time.Second, &p.Absent: time.Minute,
		&p.Admit: 10 * time.Second, &p.Review: 10 * time.Minute, &p.Ask: 5 * time.Second,
	} {
		if *d == 0 {
			*d = otherwise
		}
	}
	return p
}

// A Gateway answers CSI's Identity and Controller services for the pools of all agents
// that are connected.
type Gateway struct {
	csi.UnimplementedControllerServer

	Options
	identity plugin.Identity
	instance string // its own among all that ever ran
	door     door
	fleet    *fleet
	placing  namelock.Locks // names of volumes for which a node is looked for
	searches searches
	ties     ties
	orphans  atomic.Pointer[map[string]float64] // how many there are, by nodes
}

// New makes a gateway. Agents come by Serve.
func New(o Options) *Gateway {
	o.Patience = o.Patience.orDefault()
	if o.Lost == nil {
		o.Lost = func(string) bool { return false }
	}
	return &Gateway{Options: o, identity: plugin.Identity{Version: o.Version}, instance: rand.Text(), fleet: newFleet(o.Lost)}
}

// Register gives the gateway's services to the server that the sidecars call.
func (g *Gateway) Register(s grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(s, &g.identity)
	csi.RegisterControllerServer(s, g)
}

// Nodes returns the nodes whose agents are connected, with the keys of their pools that
// were open and the pools' names.
func (g *Gateway) Nodes() map[string]map[string]string {
	nodes := map[string]map[string]string{}
	for _, a := range g.fleet.all() {
		pools := map[string]string{}
		for _, p := range a.pools {
			if p.key != "" {
				pools[p.key] = p.name
			}
		}
		nodes[a.node] = pools
	}
	return nodes
}

// ControllerGetCapabilities lists the calls that are there: the same with and without
// agents.
func (g *Gateway) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return plugin.ControllerCapabilities(), nil
}
