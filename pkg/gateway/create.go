package gateway

import (
	"context"
	"slices"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// CreateVolume has a volume made in the pool where its source is; or where the scheduler
// wants it; or, if nobody says, where there is most room.
func (g *Gateway) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" {
		return nil, errMissing("name")
	}
	a, key, err := g.begin(ctx, r)
	if err != nil {
		return nil, err
	}
	r.AccessibilityRequirements = &csi.TopologyRequirement{
		Requisite: []*csi.Topology{plugin.Topology(a.node)}, Preferred: []*csi.Topology{plugin.Topology(a.node)},
	}
	answer, err := call(ctx, g, a, "CreateVolume", a.CreateVolume, r)
	g.ties.end(r.GetName(), definite(err))
	switch in, _ := a.keyed(key); {
	case definite(err):
		a.succeeded(request{"CreateVolume", in.name})
	case status.Code(err) == codes.DeadlineExceeded:
		a.failed(request{"CreateVolume", in.name})
	}
	if err != nil {
		return nil, err
	}
	made := plugin.ID{Pool: key, Device: plugin.Volume.DeviceName(r.GetName())}.String()
	if have := answer.GetVolume().GetVolumeId(); have != made {
		return nil, wrongAnswer(a, "CreateVolume", have)
	}
	answer.Volume.AccessibleTopology = []*csi.Topology{plugin.Topology(a.node)}
	return answer, nil
}

// begin finds where a volume is to be made, and ties it to that. Nobody else looks for a
// place for the same name until it is tied.
func (g *Gateway) begin(ctx context.Context, r *csi.CreateVolumeRequest) (*agent, string, error) {
	defer g.placing.Lock(r.GetName())()
	a, key, err := g.place(ctx, r)
	if err != nil {
		return nil, "", err
	}
	if other := g.ties.begin(r.GetName(), key); other != key {
		return nil, "", g.errTied(r.GetName(), other)
	}
	g.searches.end(r.GetName())
	return a, key, nil
}

func (g *Gateway) errTied(name, key string) error {
	s, _ := g.fleet.where(key)
	return unavailable("volume %s may have been made in pool %s of node %s by an earlier attempt, which has not ended: waiting for it", name, s.pool, s.node)
}

// place returns the agent and the pool that are to make a volume.
func (g *Gateway) place(ctx context.Context, r *csi.CreateVolumeRequest) (a *agent, key string, err error) {
	a, key, err = g.whereTied(ctx, r)
	if err != nil {
		return nil, "", err
	}
	where := r.GetAccessibilityRequirements()
	preferred := slices.Concat(where.GetPreferred(), where.GetRequisite())
	switch {
	case r.GetVolumeContentSource() != nil:
		return g.besideSource(ctx, r)
	case a != nil:
		return a, key, nil
	case len(preferred) > 0:
		a, err = g.preferred(ctx, r, preferred[0])
	default:
		a, err = g.roomiest(ctx, r)
	}
	if err != nil {
		return nil, "", err
	}
	in, _ := a.named(plugin.PoolOf(r.GetParameters()))
	return a, in.key, nil
}

// whereTied returns the agent and the pool that a volume's name is tied to; none, if it is
// not, or comes loose: the pool has been of no use for too long, or may not have the volume
// any more and says that it has not.
func (g *Gateway) whereTied(ctx context.Context, r *csi.CreateVolumeRequest) (*agent, string, error) {
	key, tied := g.ties.to(r.GetName())
	if !tied {
		return nil, "", nil
	}
	a, err := g.tied(ctx, key)
	loose := status.Code(err) == codes.ResourceExhausted
	switch {
	case err != nil && !loose:
		return nil, "", err
	case err == nil && plugin.Allows(r.GetAccessibilityRequirements(), a.node):
		return a, key, nil
	case err == nil:
		in, _ := a.keyed(key)
		has, err := g.hasVolume(ctx, a, r.GetName(), in)
		loose = err == nil && !has
	}
	if !loose || !g.ties.drop(r.GetName()) {
		return nil, "", g.errTied(r.GetName(), key)
	}
	return nil, "", nil
}

// besideSource returns the agent that has a volume's source, and its pool: a copy is
// nowhere else.
func (g *Gateway) besideSource(ctx context.Context, r *csi.CreateVolumeRequest) (a *agent, key string, err error) {
	kind, field, text := plugin.Volume, "content source: volume_id", ""
	switch s := r.GetVolumeContentSource().GetType().(type) {
	case *csi.VolumeContentSource_Snapshot:
		kind, field, text = plugin.Snapshot, "content source: snapshot_id", s.Snapshot.GetSnapshotId()
	case *csi.VolumeContentSource_Volume:
		text = s.Volume.GetVolumeId()
	default:
		return nil, "", errMissing("the type of volume_content_source")
	}
	a, source, err := g.routeID(ctx, kind, field, text)
	if err != nil {
		return nil, "", err
	}
	if !plugin.Allows(r.GetAccessibilityRequirements(), a.node) {
		return nil, "", status.Errorf(codes.InvalidArgument,
			"the source is on node %s, and so is what is made from it: the allowedTopologies of the StorageClass exclude that node", a.node)
	}
	return a, source.Pool, nil
}

// tied returns the agent of a pool in which a volume may have been made. An error of
// RESOURCE_EXHAUSTED says that the pool has been of no use for so long that the volume is
// made elsewhere.
func (g *Gateway) tied(ctx context.Context, key string) (*agent, error) {
	a, err := g.route(ctx, key)
	if err == nil {
		in, _ := a.keyed(key)
		_, err = g.usable(ctx, a, in.name)
		return a, err
	}
	s, _ := g.fleet.where(key)
	switch {
	case g.Lost(key):
		return nil, exhausted("%s", status.Convert(err).Message())
	case !s.left.IsZero():
		return nil, g.overdue(s.left, "node %s, which has pool %s, is not connected", s.node, s.pool)
	}
	return nil, err
}

// preferred returns the agent of the node that the scheduler has chosen. An absent one is
// waited for, and then given up, so that the claim can move.
func (g *Gateway) preferred(ctx context.Context, r *csi.CreateVolumeRequest, t *csi.Topology) (*agent, error) {
	segment, ok := t.GetSegments()[plugin.TopologyKey]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "accessibility_requirements: a topology without %s", plugin.TopologyKey)
	}
	a, gone := g.awaitNode(ctx, segment)
	if a == nil {
		return nil, g.overdue(gone.at, "the agent of node %s is not connected", gone.node)
	}
	name := plugin.PoolOf(r.GetParameters())
	if _, has := a.named(name); !has {
		if err := g.checkPoolName(name); err != nil {
			return nil, err
		}
	}
	_, err := g.usable(ctx, a, name)
	return a, err
}

// awaitNode returns the agent of a node, or since when there is none.
func (g *Gateway) awaitNode(ctx context.Context, segment string) (a *agent, gone departure) {
	g.await(ctx, func() bool {
		a, gone = g.fleet.on(segment)
		return a != nil
	})
	return a, gone
}

// usable is ready for an agent that has lately not answered about the pool: it is asked
// again first, so that no volume is tied to it. One that answers, and makes no volume in
// time, is passed over for as long as it was tried, and then tried again.
func (g *Gateway) usable(ctx context.Context, a *agent, name string) (pool, error) {
	p, err := g.ready(a, name)
	if err != nil {
		return p, err
	}
	if err := g.makesNone(a, name); err != nil {
		return p, err
	}
	if !a.failing(func(r request) bool { return r.pool == name }).IsZero() {
		_, err = g.askCapacity(ctx, a, name, nil)
	}
	return p, err
}

// makesNone is the error of a pool in which no volume was made in time for so long that
// claims had better move.
func (g *Gateway) makesNone(a *agent, name string) error {
	what := request{"CreateVolume", name}
	since := a.failing(func(r request) bool { return r == what })
	switch tried := time.Since(since); {
	case since.IsZero() || tried <= g.Patience.Absent:
		return nil
	case tried > 2*g.Patience.Absent:
		a.succeeded(what) // perhaps it does now
		return nil
	}
	return g.overdue(since, "node %s has made no volume in pool %s that was asked for", a.node, name)
}

// ready returns the pool of an agent in which a new volume can be made. An error tells to
// wait for it (UNAVAILABLE), or to go elsewhere (RESOURCE_EXHAUSTED).
func (g *Gateway) ready(a *agent, name string) (pool, error) {
	p, has := a.named(name)
	if !has {
		return p, exhausted("node %s has no pool %s", a.node, name)
	}
	if p.key != "" && g.Lost(p.key) {
		return p, exhausted("pool %s of node %s was declared lost in the ConfigMap csi-dmthin-lost", name, a.node)
	}
	if since, shared := g.fleet.sharedSince(p.key); shared {
		return p, g.overdue(since, "%s", status.Convert(errTwice(p.key, g.fleet.owners(p.key))).Message())
	}
	if !p.open {
		return p, g.overdue(g.fleet.closedSince(place{a.node, name}), "pool %s of node %s is not open", name, a.node)
	}
	return p, nil
}
