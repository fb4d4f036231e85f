package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// CreateVolume has a volume made on the node where its source is; or where the scheduler
// wants it; or, if nobody says, where there is most room.
func (g *Gateway) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" {
		return nil, errMissing("name")
	}
	a, err := g.place(ctx, r)
	if err != nil {
		return nil, err
	}
	segment := plugin.Segment(a.node)
	if other := g.ties.begin(r.GetName(), segment); other != segment {
		return nil, errTied(r.GetName(), other)
	}
	r.AccessibilityRequirements = &csi.TopologyRequirement{
		Requisite: []*csi.Topology{plugin.Topology(a.node)}, Preferred: []*csi.Topology{plugin.Topology(a.node)},
	}
	answer, err := call(ctx, g, a, "CreateVolume", a.CreateVolume, r)
	g.ties.end(r.GetName(), definite(err))
	if err != nil {
		return nil, err
	}
	if err := a.checkOwn(plugin.Volume, answer.GetVolume().GetVolumeId()); err != nil {
		return nil, err
	}
	answer.Volume.AccessibleTopology = []*csi.Topology{plugin.Topology(a.node)}
	return answer, nil
}

func errTied(name, segment string) error {
	return unavailable("volume %s may have been made on node %s by an earlier attempt, which has not ended: waiting for it", name, segment)
}

// checkOwn refuses an id that is none of the agent's pools: an agent is believed about
// its own.
func (a *agent) checkOwn(k plugin.Kind, text string) error {
	i, err := plugin.ParseID(k, text)
	if _, own := a.pools[i.Pool]; err != nil || !own {
		return status.Errorf(codes.Internal, "node %s answers with %.140q, which is in none of its pools", a.node, text)
	}
	return nil
}

// place returns the agent that is to make a volume.
func (g *Gateway) place(ctx context.Context, r *csi.CreateVolumeRequest) (*agent, error) {
	if r.GetVolumeContentSource() != nil {
		return g.besideSource(ctx, r)
	}
	where := r.GetAccessibilityRequirements()
	if segment, tied := g.ties.to(r.GetName()); tied {
		a, err := g.tied(ctx, r.GetName(), segment)
		if a != nil && !plugin.Allows(where, a.node) {
			return nil, errTied(r.GetName(), segment)
		}
		if a != nil || err != nil {
			return a, err
		}
	}
	if preferred := slices.Concat(where.GetPreferred(), where.GetRequisite()); len(preferred) > 0 {
		return g.preferred(ctx, r, preferred[0])
	}
	return g.roomiest(ctx, r)
}

// besideSource returns the agent that has a volume's source: a copy is nowhere else.
func (g *Gateway) besideSource(ctx context.Context, r *csi.CreateVolumeRequest) (a *agent, err error) {
	switch s := r.GetVolumeContentSource().GetType().(type) {
	case *csi.VolumeContentSource_Snapshot:
		a, err = g.routeID(ctx, plugin.Snapshot, "content source: snapshot_id", s.Snapshot.GetSnapshotId())
	case *csi.VolumeContentSource_Volume:
		a, err = g.routeID(ctx, plugin.Volume, "content source: volume_id", s.Volume.GetVolumeId())
	default:
		return nil, errMissing("the type of volume_content_source")
	}
	if err != nil {
		return nil, err
	}
	if !plugin.Allows(r.GetAccessibilityRequirements(), a.node) {
		return nil, status.Errorf(codes.InvalidArgument,
			"the source is on node %s, and so is what is made from it: the allowedTopologies of the StorageClass exclude that node", a.node)
	}
	return a, nil
}

// tied returns the agent of a node that may have made a volume; none, if it has been away
// for so long that the volume is made elsewhere.
func (g *Gateway) tied(ctx context.Context, name, segment string) (*agent, error) {
	a, err := g.present(ctx, segment)
	if status.Code(err) == codes.ResourceExhausted {
		g.ties.drop(name)
		return nil, nil
	}
	return a, err
}

// present returns the agent of a node. An absent one is waited for, and then given up, so
// that the claim can move.
func (g *Gateway) present(ctx context.Context, segment string) (a *agent, err error) {
	var since time.Time
	g.await(ctx, func() bool {
		a, since = g.fleet.on(segment)
		return a != nil
	})
	switch {
	case a != nil:
		return a, nil
	case time.Since(since) > g.Patience.Absent && !g.starting():
		return nil, status.Errorf(codes.ResourceExhausted, "the agent of node %s has not been connected for more than %v", segment, g.Patience.Absent)
	}
	return nil, unavailable("the agent of node %s is not connected", segment)
}

// preferred returns the agent of the node that the scheduler has chosen.
func (g *Gateway) preferred(ctx context.Context, r *csi.CreateVolumeRequest, t *csi.Topology) (*agent, error) {
	segment, ok := t.GetSegments()[plugin.TopologyKey]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "accessibility_requirements: a topology without %s", plugin.TopologyKey)
	}
	a, err := g.present(ctx, segment)
	if err != nil {
		return nil, err
	}
	pool := plugin.PoolOf(r.GetParameters())
	if key, ok := a.has(pool); ok && g.fleet.usable(key) {
		return a, nil
	}
	if err := g.checkPoolName(pool); err != nil {
		return nil, err
	}
	return nil, status.Errorf(codes.ResourceExhausted, "node %s has no pool %s that can be used", a.node, pool)
}

// checkPoolName refuses a pool that no node has: it was misspelt.
func (g *Gateway) checkPoolName(pool string) error {
	known := map[string]bool{}
	for _, at := range g.fleet.places() {
		known[at.pool] = true
	}
	if known[pool] {
		return nil
	}
	if g.starting() || len(known) == 0 {
		return unavailable("no node that is connected has a pool %s", pool)
	}
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return status.Errorf(codes.InvalidArgument, "no node has a pool %q: there are %s", pool, strings.Join(names, ", "))
}

// roomiest returns the agent that has the volume already, or most room for it.
func (g *Gateway) roomiest(ctx context.Context, r *csi.CreateVolumeRequest) (*agent, error) {
	pool := plugin.PoolOf(r.GetParameters())
	var candidates []*agent
	g.await(ctx, func() bool {
		candidates = nil
		for _, a := range g.fleet.all() {
			if key, ok := a.has(pool); ok && g.fleet.usable(key) {
				candidates = append(candidates, a)
			}
		}
		return len(candidates) > 0
	})
	if len(candidates) == 0 {
		if err := g.checkPoolName(pool); err != nil {
			return nil, err
		}
		return nil, unavailable("no node with a pool %s is connected", pool)
	}
	found, err := g.whoHas(ctx, r.GetName(), pool, candidates)
	if found != nil || err != nil {
		return found, err
	}
	return g.mostRoom(ctx, r, candidates)
}

// whoHas asks agents for a volume by its name. All must know: an attempt without answer
// may have been any one's.
func (g *Gateway) whoHas(ctx context.Context, name, pool string, agents []*agent) (*agent, error) {
	answers, err := askAll(ctx, g, agents, func(ctx context.Context, a *agent) (bool, error) {
		key, _ := a.has(pool)
		id := plugin.ID{Pool: key, Device: plugin.Volume.DeviceName(name)}
		_, err := call(ctx, g, a, "ControllerGetVolume", a.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id.String()})
		if status.Code(err) == codes.NotFound {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("whether there is a volume %s: %w", name, err)
	}
	for i, has := range answers {
		if has {
			return agents[i], nil
		}
	}
	return nil, nil
}

func (g *Gateway) mostRoom(ctx context.Context, r *csi.CreateVolumeRequest, agents []*agent) (best *agent, err error) {
	rooms, err := askAll(ctx, g, agents, func(ctx context.Context, a *agent) (int64, error) {
		answer, err := call(ctx, g, a, "GetCapacity", a.GetCapacity, &csi.GetCapacityRequest{
			Parameters: r.GetParameters(), VolumeCapabilities: r.GetVolumeCapabilities(),
		})
		if err != nil {
			return 0, nil // nobody has to know who has no room
		}
		return answer.GetMaximumVolumeSize().GetValue(), nil
	})
	if err != nil {
		return nil, err
	}
	most := int64(-1)
	for i, room := range rooms {
		if room > most {
			best, most = agents[i], room
		}
	}
	if want := r.GetCapacityRange().GetRequiredBytes(); want > most {
		return nil, status.Errorf(codes.ResourceExhausted, "no node has room for %d bytes in pool %s: the most is %d bytes, on node %s",
			want, plugin.PoolOf(r.GetParameters()), most, best.node)
	}
	return best, nil
}

// askAll asks agents at once, and returns their answers in order or the first error.
func askAll[A any](ctx context.Context, g *Gateway, agents []*agent, ask func(context.Context, *agent) (A, error)) ([]A, error) {
	ctx, cancel := context.WithTimeout(ctx, g.Patience.Ask)
	defer cancel()
	answers, errs := make([]A, len(agents)), make([]error, len(agents))
	var all sync.WaitGroup
	for i, a := range agents {
		all.Go(func() { answers[i], errs[i] = ask(ctx, a) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}
