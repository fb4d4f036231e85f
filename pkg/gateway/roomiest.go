package gateway

import (
	"context"
	"strings"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// roomiest returns the agent that has the volume already, or most room for it.
func (g *Gateway) roomiest(ctx context.Context, r *csi.CreateVolumeRequest) (*agent, error) {
	if err := g.allKnown(ctx); err != nil {
		return nil, err
	}
	name := plugin.PoolOf(r.GetParameters())
	if err := g.checkPoolName(name); err != nil {
		return nil, err
	}
	has, others, err := g.whoHas(ctx, r.GetName(), name)
	if has != nil || err != nil {
		return has, err
	}
	if len(others) == 0 {
		return nil, unavailable("no node with a pool %s that can be used is connected", name)
	}
	return g.mostRoom(ctx, r, others)
}

// checkPoolName refuses a pool that no node has: it was misspelt.
func (g *Gateway) checkPoolName(name string) error {
	if g.fleet.hasName(name) {
		return nil
	}
	names := g.fleet.allNames()
	if g.starting() || len(names) == 0 {
		return unavailable("no node that is connected has a pool %s", name)
	}
	return status.Errorf(codes.InvalidArgument, "no node has a pool %q: there are %s", name, strings.Join(names, ", "))
}

// whoHas asks the agents that have a pool of a name for a volume, and returns the one that
// has it or makes it just now; else those that do not. An attempt without answer may have
// been any one's, so all that were here lately must say so: who restarts is waited for.
func (g *Gateway) whoHas(ctx context.Context, volume, name string) (has *agent, others []*agent, err error) {
	end := time.NewTimer(g.Patience.Hold)
	defer end.Stop()
	denied := g.searches.begin(volume)
	for {
		change := g.fleet.change()
		agents, missing := g.candidates(name, denied)
		for _, answer := range askAll(ctx, g, agents, func(ctx context.Context, a *agent) (bool, error) {
			in, _ := a.named(name)
			if denied[in.key] {
				return false, nil
			}
			return g.hasVolume(ctx, a, volume, in)
		}) {
			switch in, _ := answer.agent.named(name); {
			case answer.value:
				return answer.agent, nil, nil
			case answer.err == nil:
				denied[in.key] = true
				others = append(others, answer.agent)
			case status.Code(answer.err) != codes.ResourceExhausted:
				missing = answer.err
			}
		}
		if missing == nil {
			return nil, others, nil
		}
		others = nil
		select {
		case <-change:
		case <-end.C:
			return nil, nil, about(missing, "whether there is a volume %s is not known", volume)
		case <-ctx.Done():
			return nil, nil, patienceEnded(ctx, "whether there is a volume "+volume+" is not known")
		}
	}
}

// hasVolume asks an agent for a volume by its name.
func (g *Gateway) hasVolume(ctx context.Context, a *agent, volume string, in pool) (bool, error) {
	id := plugin.ID{Pool: in.key, Device: plugin.Volume.DeviceName(volume)}
	_, err := ask(ctx, g, a, "ControllerGetVolume", in.name, a.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id.String()})
	switch status.Code(err) {
	case codes.OK:
		return true, nil
	case codes.NotFound:
		return false, nil
	case codes.Aborted: // something is being done with it
		return true, nil
	}
	return false, err
}

// candidates returns the agents in whose pool of a name a volume can be made, and an error
// if there may be one more that has it and was not asked.
func (g *Gateway) candidates(name string, asked map[string]bool) (agents []*agent, missing error) {
	for _, a := range g.fleet.all() {
		in, has := a.named(name)
		if !has {
			continue
		}
		_, err := g.ready(a, name)
		switch {
		case err == nil:
			agents = append(agents, a)
		case status.Code(err) == codes.Unavailable && !asked[in.key]:
			missing = err
		}
	}
	for _, s := range g.fleet.everywhere() { // what a node that is here has no more is not in it
		if s.pool == name && !s.left.IsZero() && time.Since(s.left) <= g.Patience.Absent && !asked[s.key] && !g.fleet.isHere(s.node) {
			missing = g.fleet.errAbsent(s.key)
		}
	}
	for at, since := range g.fleet.neverOpen() {
		if at.pool == name && time.Since(since) <= g.Patience.Absent && !g.fleet.isHere(at.node) {
			missing = unavailable("node %s, which has pool %s, is not connected", at.node, at.pool)
		}
	}
	return agents, missing
}

// mostRoom returns the agent with most room. The figures are in no error: they change, and
// with them events that are one.
func (g *Gateway) mostRoom(ctx context.Context, r *csi.CreateVolumeRequest, agents []*agent) (*agent, error) {
	var silent error
	best, most := agents[0], int64(0)
	for _, answer := range askAll(ctx, g, agents, func(ctx context.Context, a *agent) (*csi.GetCapacityResponse, error) {
		return g.askCapacity(ctx, a, plugin.PoolOf(r.GetParameters()), r.GetVolumeCapabilities())
	}) {
		if answer.err != nil {
			silent = answer.err
		} else if g.makesNone(answer.agent, plugin.PoolOf(r.GetParameters())) != nil {
			continue
		} else if room := answer.value.GetMaximumVolumeSize().GetValue(); room > most {
			best, most = answer.agent, room
		}
	}
	want := r.GetCapacityRange().GetRequiredBytes()
	switch {
	case want <= most:
		return best, nil
	case silent != nil:
		return nil, about(silent, "whether a node has room for %d bytes in pool %s is not known", want, plugin.PoolOf(r.GetParameters()))
	}
	return nil, exhausted("no node has room for %d bytes in pool %s", want, plugin.PoolOf(r.GetParameters()))
}

// An answer is that of one agent of many.
type answer[A any] struct {
	agent *agent
	value A
	err   error
}

// askAll asks agents at once, and returns their answers in the same order.
func askAll[A any](ctx context.Context, g *Gateway, agents []*agent, ask func(context.Context, *agent) (A, error)) []answer[A] {
	answers := make([]answer[A], len(agents))
	var all sync.WaitGroup
	for i, a := range agents {
		all.Go(func() {
			value, err := ask(ctx, a)
			answers[i] = answer[A]{a, value, err}
		})
	}
	all.Wait()
	return answers
}
