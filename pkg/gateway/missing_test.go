package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

func deletionOf(n *node, name string) *spec.DeleteVolumeRequest {
	return &spec.DeleteVolumeRequest{VolumeId: n.key("default") + ".v-" + name}
}

func soon(o *gateway.Options) { o.Patience.Absent = time.Second }

// closes is an agent that says that its pools are not open for as long as closed is set;
// with the secrets that it knows.
func closes(closed *atomic.Bool, known bool) func(*gateway.Agent) {
	return func(a *gateway.Agent) {
		pools := a.Pools
		a.Pools = func() []gateway.Pool {
			all := pools()
			for i := range all {
				if closed.Load() {
					all[i].Open = false
					if !known {
						all[i].Secret = ""
					}
				}
			}
			return all
		}
	}
}

// movesOn is no error if a claim is given back to the scheduler.
func movesOn(_ any, err error) error {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return nil
	case codes.OK:
		return errors.New("the volume was made")
	}
	return err
}

// notOpen is an agent whose pool of a name was never open.
func notOpen(name string) func(*gateway.Agent) {
	return func(a *gateway.Agent) {
		pools := a.Pools
		a.Pools = func() []gateway.Pool {
			all := pools()
			for i := range all {
				if all[i].Name == name {
					all[i].Open, all[i].Secret = false, ""
				}
			}
			return all
		}
	}
}

func room(t *testing.T, g *controller, node string) int64 {
	t.Helper()
	answer, err := g.GetCapacity(t.Context(), &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology(node)})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetAvailableCapacity()
}

// A pool that is not open is awaited, like an absent node, and then given up.
func TestPoolThatIsNotOpen(t *testing.T) {
	for name, known := range map[string]bool{"never was": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			g := c.controller(soon)
			var closed atomic.Bool
			closed.Store(true)
			fast := csitest.NewWorldOf(t.TempDir(), 8*gib)
			c.nodeOn("na", fast, closes(&closed, known))
			g.knows(t, "na")
			_, err := g.CreateVolume(t.Context(), request("one", gib, "na"))
			refuses(t, err, codes.Unavailable, "pool default of node na is not open")
			_, err = g.CreateVolume(t.Context(), request("one", gib)) // nor is it made elsewhere meanwhile
			refuses(t, err, codes.Unavailable)
			if got := room(t, g, "na"); got != 0 {
				t.Errorf("it has %d bytes", got)
			}
			until(t, func() error { return movesOn(g.CreateVolume(t.Context(), request("one", gib, "na"))) })
			_, err = g.CreateVolume(t.Context(), request("one", gib))
			refuses(t, err, codes.Unavailable, "no node with a pool default that can be used")
			closed.Store(false)
			until(t, func() error { return second(g.CreateVolume(t.Context(), request("one", gib, "na"))) })
		})
	}
}

// A pool that is not open yet is known by its name: it was not misspelt.
func TestPoolThatIsOpenNowhere(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	w := csitest.NewWorldOf(t.TempDir(), 8*gib)
	w.AddPool("fast", 16*gib)
	c.nodeOn("na", w, notOpen("default"))
	g.knows(t, "na")
	_, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	refuses(t, err, codes.Unavailable, "pool default of node na") // it may have some
	_, err = g.CreateVolume(t.Context(), request("one", gib))
	refuses(t, err, codes.Unavailable, "default")
	if got := room(t, g, "na"); got != 0 {
		t.Errorf("a pool that is not open has %d bytes", got)
	}
	_, err = g.CreateVolume(t.Context(), inPool(request("one", gib), "fats"))
	refuses(t, err, codes.InvalidArgument, "default, fast")
}

// While the controller starts the first agent to come back is not the only one.
func TestImmediateInTheStart(t *testing.T) {
	c := newCluster(t)
	slow := func(o *gateway.Options) {
		o.Patience.Start, o.Patience.Hold = 1500*time.Millisecond, 300*time.Millisecond
	}
	g := c.controller()
	na := c.node("na", 16*gib)
	g.knows(t, "na")
	if _, at := g.made(t, request("one", gib)); at != "na" {
		t.Fatalf("it is on %s", at)
	}
	g.stop()
	na.stop()
	g = c.controller(slow)
	nb := c.node("nb", 8*gib)
	g.knows(t, "nb")
	_, err := g.CreateVolume(t.Context(), request("one", gib))
	refuses(t, err, codes.Unavailable, "just started")
	if _, err = g.GetCapacity(t.Context(), &spec.GetCapacityRequest{
		AccessibleTopology: plugin.Topology("nb"), Parameters: map[string]string{"csi-dmthin.dev/pool": "fast"},
	}); err == nil {
		t.Error("a pool that was not seen yet was taken for misspelt") // what was published stays
	}
	refuses(t, err, codes.Unavailable, "fast")
	c.connect(na)
	until(t, func() error {
		v, err := g.CreateVolume(t.Context(), request("one", gib))
		if err == nil && !strings.HasPrefix(v.GetVolume().GetVolumeId(), na.key("default")) {
			t.Error("it was made twice")
		}
		return err
	})
	if len(volumesOf(t, nb)) != 0 {
		t.Error("it was made twice")
	}
}

// An agent that has just gone may have the volume: who has none is not asked to make it.
func TestImmediateWhileANodeRestarts(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Absent, o.Patience.Hold = 2*time.Second, 300*time.Millisecond })
	na, nb := c.node("na", 16*gib), c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	g.made(t, request("one", gib)) // of which this controller knows nothing any more
	na.stop()
	g.knows(t, "nb")
	_, err := g.CreateVolume(t.Context(), request("one", gib))
	refuses(t, err, codes.Unavailable, "volume one", "node na")

	// It comes back in time.
	answered := make(chan error, 1)
	go func() { answered <- second(g.CreateVolume(context.Background(), request("one", gib))) }()
	time.Sleep(50 * time.Millisecond)
	c.connect(na)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if len(volumesOf(t, nb)) != 0 {
		t.Error("it was made twice")
	}

	// It does not, for long.
	na.stop()
	g.knows(t, "nb")
	until(t, func() error { return second(g.CreateVolume(t.Context(), request("two", gib))) })
	if got := volumesOf(t, nb); !slices.Equal(got, []string{"two"}) {
		t.Errorf("nb has %v", got)
	}
}

// An agent that is connected and hangs holds volumes up for a while, and not for ever; and
// not at all where another one has what is asked for.
func TestHungAgent(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) {
		o.Patience.Absent, o.Patience.Ask, o.Patience.Hold = 2*time.Second, 200*time.Millisecond, 300*time.Millisecond
	})
	registry := prometheus.NewRegistry()
	gateway.NewMetrics(registry, g.gateway)
	var hung atomic.Bool
	c.node("na", 16*gib, hangs(&hung))
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	g.made(t, request("there", gib, "nb"))
	hung.Store(true)
	if _, at := g.made(t, request("there", gib)); at != "nb" {
		t.Errorf("it is on %s", at)
	}
	_, err := g.CreateVolume(t.Context(), request("new", gib))
	refuses(t, err, codes.Unavailable, "volume new", "node na")
	_, err = g.CreateVolume(t.Context(), request("new", gib, "na"))
	refuses(t, err, codes.Unavailable, "node na", "answers no question")
	metric := "dmthin_gateway_agent_silent_seconds"
	if families, err := registry.Gather(); err != nil || !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == metric }) {
		t.Errorf("%s is not there: %v", metric, err)
	}
	until(t, func() error { return second(g.CreateVolume(t.Context(), request("new", gib))) })
	until(t, func() error { return movesOn(g.CreateVolume(t.Context(), request("other", gib, "na"))) })
	if got := room(t, g, "na"); got != 0 {
		t.Errorf("a node that answers nothing has %d bytes", got)
	}
	hung.Store(false) // it was not for ever
	if _, at := g.made(t, request("other", 2*gib, "na")); at != "na" {
		t.Errorf("it is on %s", at)
	}
	if got := room(t, g, "na"); got == 0 {
		t.Error("a node that answers again has no room")
	}
}

// Silence is not want of room.
func TestSilentAgentMayHaveRoom(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Ask = 200 * time.Millisecond })
	held := newGate("GetCapacity")
	defer close(held.open)
	c.node("na", 16*gib, held.within)
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	if _, at := g.made(t, request("small", gib)); at != "nb" {
		t.Errorf("it is on %s", at)
	}
	_, err := g.CreateVolume(t.Context(), request("large", 12*gib))
	refuses(t, err, codes.Unavailable, "room for 12884901888 bytes", "node na")
}

// A name is tied to the pool, and comes loose where that can be of no use any more.
func TestTiesComeLoose(t *testing.T) {
	for why, undo := range map[string]func(*testing.T, *cluster, *node, *atomic.Bool){
		"lost":  func(_ *testing.T, c *cluster, n *node, _ *atomic.Bool) { c.lost.Store(n.key("default"), true) },
		"gone":  func(_ *testing.T, _ *cluster, n *node, _ *atomic.Bool) { n.stop() },
		"close": func(_ *testing.T, _ *cluster, _ *node, closed *atomic.Bool) { closed.Store(true) },
	} {
		t.Run(why, func(t *testing.T) {
			c := newCluster(t)
			g := c.controller(soon)
			held := newGate("CreateVolume")
			var closed atomic.Bool
			na := c.node("na", 16*gib, held.within, closes(&closed, true))
			c.node("nb", 8*gib)
			g.knows(t, "na", "nb")
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := g.CreateVolume(ctx, request("one", gib))
			refuses(t, err, codes.DeadlineExceeded)
			_, err = g.CreateVolume(t.Context(), request("one", gib, "nb"))
			refuses(t, err, codes.Unavailable, "one", "pool default of node na")
			close(held.open)
			undo(t, c, na, &closed)
			until(t, func() error { return second(g.CreateVolume(t.Context(), request("one", gib, "nb"))) })
		})
	}
}

// A pool that moves takes its ties along; one that is on two nodes holds them.
func TestTiesMoveWithTheirPool(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	held := newGate("CreateVolume")
	na := c.node("na", 16*gib, held.within)
	g.knows(t, "na")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := g.CreateVolume(ctx, request("one", gib, "na"))
	refuses(t, err, codes.DeadlineExceeded)
	close(held.open)
	thief := c.node("nx", 8*gib, func(a *gateway.Agent) { a.Pools = na.agent.Pools })
	g.knows(t, "na", "nx")
	_, err = g.CreateVolume(t.Context(), request("one", gib, "na"))
	refuses(t, err, codes.Unavailable, "na and nx")
	thief.stop()
	na.stop()
	if err := na.Driver.Close(); err != nil {
		t.Fatal(err)
	}
	c.nodeOn("nb", na.world)
	g.knows(t, "nb")
	if _, at := g.made(t, request("one", gib, "nb")); at != "nb" {
		t.Errorf("it is on %s", at)
	}
}

// Two attempts at once make one volume.
func TestTwoAttemptsAtOnce(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na, nb := c.node("na", 8*gib), c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	for i := range 20 {
		name := "v-" + string(rune('a'+i))
		answers := make(chan error, 8)
		for range cap(answers) {
			go func() { answers <- second(g.CreateVolume(context.Background(), request(name, 1<<20))) }()
		}
		var errs error
		for range cap(answers) {
			errs = errors.Join(errs, <-answers)
		}
		if errs != nil {
			t.Fatal(errs)
		}
	}
	if a, b := volumesOf(t, na), volumesOf(t, nb); len(a)+len(b) != 20 {
		t.Errorf("na has %v, and nb %v", a, b)
	}
}

// A pool that a node has no more is told from a node that is absent.
func TestPoolThatANodeHasNoMore(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	var without atomic.Bool
	na := c.node("na", 8*gib, func(a *gateway.Agent) {
		pools := a.Pools
		a.Pools = func() []gateway.Pool {
			if without.Load() {
				return nil
			}
			return pools()
		}
	})
	g.knows(t, "na")
	without.Store(true)
	until(t, func() error {
		_, err := g.DeleteVolume(t.Context(), deletionOf(na, "one"))
		if err == nil || !strings.Contains(err.Error(), "no more") {
			return errors.Join(errors.New("it has the pool"), err)
		}
		return nil
	})
}

// The start lasts until agents could come: before, nothing is known.
func TestBeforeAgentsCanCome(t *testing.T) {
	p := patience
	p.Start, p.Absent, p.Hold = 100*time.Millisecond, 100*time.Millisecond, 10*time.Millisecond
	g := gateway.New(gateway.Options{Version: "1.3", Patience: p})
	time.Sleep(300 * time.Millisecond) // the API server is away, and there are no certificates
	_, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	refuses(t, err, codes.Unavailable)
	_, err = g.GetCapacity(t.Context(), &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology("na")})
	refuses(t, err, codes.Unavailable)
	_, err = g.CreateVolume(t.Context(), request("one", gib, "na"))
	refuses(t, err, codes.Unavailable)
}

// A pool's name and the time since which it is not open outlive the agent's connection.
func TestPoolThatIsNotOpenAndComesAndGoes(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Absent, o.Patience.Hold = time.Second, 200*time.Millisecond })
	w := csitest.NewWorldOf(t.TempDir(), 8*gib)
	w.AddPool("fast", 16*gib)
	na := c.nodeOn("na", w, notOpen("fast"))
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	na.stop()
	g.knows(t, "nb")
	_, err := g.CreateVolume(t.Context(), inPool(request("one", gib), "fast"))
	refuses(t, err, codes.Unavailable, "fast")
	answer, err := g.GetCapacity(t.Context(), &spec.GetCapacityRequest{
		AccessibleTopology: plugin.Topology("nb"), Parameters: map[string]string{"csi-dmthin.dev/pool": "fast"},
	})
	if err != nil || answer.GetAvailableCapacity() != 0 {
		t.Errorf("nb, which has no such pool, has %v, %v", answer, err)
	}
	until(t, func() error {
		c.connect(na, notOpen("fast"))
		g.knows(t, "na", "nb")
		_, err := g.CreateVolume(t.Context(), inPool(request("one", gib, "na"), "fast"))
		na.stop()
		g.knows(t, "nb")
		return movesOn(nil, err)
	})
}

// only lets requests of which that is asked hang.
func only(hung *atomic.Bool, which func(method string, r any) bool) func(*gateway.Agent) {
	return func(a *gateway.Agent) {
		inner := a.Intercept
		a.Intercept = func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			for hung.Load() && which(info.FullMethod, r) && ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			return inner(ctx, r, info, handle)
		}
	}
}

// Claims are given back by a node whose disk hangs, though it answers what it has in memory;
// and by one that answers everything, and makes no volume.
func TestHungDisk(t *testing.T) {
	for why, methods := range map[string][]string{"disk": {"/GetCapacity", "/CreateVolume"}, "volumes": {"/CreateVolume"}} {
		t.Run(why, func(t *testing.T) {
			c := newCluster(t)
			g := c.controller(func(o *gateway.Options) { o.Patience.Absent, o.Patience.Ask = time.Second, 100*time.Millisecond })
			var hung atomic.Bool
			na := c.node("na", 16*gib, only(&hung, func(method string, _ any) bool {
				return slices.ContainsFunc(methods, func(m string) bool { return strings.HasSuffix(method, m) })
			}))
			g.knows(t, "na")
			hung.Store(true)
			create := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				_, err := g.CreateVolume(ctx, request("one", gib, "na"))
				return err
			}
			until(t, func() error {
				_, err := g.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: na.key("default") + ".v-x"})
				refuses(t, err, codes.NotFound)
				return movesOn(nil, create())
			})
			if got := room(t, g, "na"); got != 0 {
				t.Errorf("the scheduler is told of %d bytes", got)
			}
			hung.Store(false)
			until(t, create) // it is tried again
		})
	}
}

// A pool that hangs is no reason to pass another one of its node over.
func TestHungPoolBesideAnother(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) {
		o.Patience.Absent, o.Patience.Ask = 200*time.Millisecond, 100*time.Millisecond
	})
	var hung atomic.Bool
	w := csitest.NewWorldOf(t.TempDir(), 8*gib)
	w.AddPool("fast", 16*gib)
	c.nodeOn("na", w, only(&hung, func(_ string, r any) bool {
		capacity, ok := r.(*spec.GetCapacityRequest)
		return ok && plugin.PoolOf(capacity.GetParameters()) == "default"
	}))
	g.knows(t, "na")
	hung.Store(true)
	for i := range 3 {
		_, err := g.GetCapacity(t.Context(), &spec.GetCapacityRequest{AccessibleTopology: plugin.Topology("na")})
		if i == 0 && err == nil {
			t.Error("it does not hang")
		}
		time.Sleep(150 * time.Millisecond)
	}
	if _, at := g.made(t, inPool(request("one", gib, "na"), "fast")); at != "na" {
		t.Errorf("it is on %s", at)
	}
	_, err := g.CreateVolume(t.Context(), request("two", gib, "na"))
	refuses(t, err, codes.ResourceExhausted, "pool default")
}

// says is a driver that answers about volumes with an error.
type says struct {
	spec.UnimplementedControllerServer
	err error
}

func (s says) ControllerGetVolume(context.Context, *spec.ControllerGetVolumeRequest) (*spec.ControllerGetVolumeResponse, error) {
	return nil, s.err
}

// One agent that is broken does not stop volumes for which nobody has chosen a node, and its
// codes are not those of their claims.
func TestBrokenAgent(t *testing.T) {
	for why, broken := range map[string]error{
		"internal": status.Error(codes.Internal, "x"), "invalid": status.Error(codes.InvalidArgument, "x"),
		"unavailable": status.Error(codes.Unavailable, "x"), "older": status.Error(codes.Unimplemented, "x"),
	} {
		t.Run(why, func(t *testing.T) {
			c := newCluster(t)
			g := c.controller(func(o *gateway.Options) {
				o.Patience.Absent, o.Patience.Hold = 500*time.Millisecond, 100*time.Millisecond
			})
			c.node("bad", gib, serves(says{err: broken}))
			c.node("nb", 8*gib)
			g.knows(t, "nb", "bad")
			until(t, func() error {
				_, err := g.CreateVolume(t.Context(), request("one", gib))
				if err != nil {
					refuses(t, err, codes.Unavailable, "bad")
				}
				return err
			})
		})
	}
}

// Who has said no need not say so again: in a large cluster some node is always away.
func TestRollingUpgrade(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Hold = 300 * time.Millisecond })
	var nodes []*node
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprint("n", i))
		nodes = append(nodes, c.node(names[i], 8*gib))
	}
	g.knows(t, names...)
	made := make(chan error, 1)
	nodes[3].stop()
	g.knows(t, names[:3]...)
	go func() {
		var err error
		for range 50 {
			if _, err = g.CreateVolume(context.Background(), request("one", gib)); err == nil {
				break
			}
		}
		made <- err
	}()
	for i := 0; ; i++ { // there is always one away
		gone := nodes[i%4]
		gone.stop()
		time.Sleep(200 * time.Millisecond)
		c.connect(nodes[(i+3)%4])
		select {
		case err := <-made:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// A pool that is on two nodes for a moment, since its disks have moved, may have the volume.
func TestImmediateWhileAPoolIsOnTwoNodes(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na, nb := c.node("na", 16*gib), c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	g.made(t, request("one", gib))
	thief := c.node("nx", 8*gib, func(a *gateway.Agent) { a.Pools = na.agent.Pools })
	g.knows(t, "na", "nb", "nx")
	_, err := g.CreateVolume(t.Context(), request("one", gib))
	refuses(t, err, codes.Unavailable, "na and nx")
	thief.stop()
	g.knows(t, "na", "nb")
	g.made(t, request("one", gib))
	if len(volumesOf(t, nb)) != 0 {
		t.Error("it was made twice")
	}
}

// A name that is tied to a pool in which it may not be any more comes loose when the pool
// says that it has no such volume.
func TestTieThatIsAskedAbout(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 16*gib, serves(says{err: errNotThere})) // it makes none
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	_, err := g.CreateVolume(t.Context(), request("one", gib, "na"))
	refuses(t, err, codes.Unavailable, "CreateVolume")
	if _, at := g.made(t, request("one", gib, "nb")); at != "nb" {
		t.Errorf("it is on %s", at)
	}
}

// An agent whose pools change all the time is a nuisance, and no more than that.
func TestAgentThatInventsPools(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("nb", 8*gib)
	var n atomic.Int64
	c.node("bad", 8*gib, func(a *gateway.Agent) {
		a.Pools = func() (all []gateway.Pool) {
			k := n.Add(1)
			for i := range 250 {
				all = append(all, gateway.Pool{Name: fmt.Sprint("p", i), Secret: fmt.Sprint(k, i), Open: true})
			}
			return all
		}
	})
	g.knows(t, "nb", "bad")
	until(t, func() error {
		_, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
		if err == nil || !strings.Contains(err.Error(), "240 more") {
			return fmt.Errorf("it has not changed: %w", errors.Join(errNotThere, err))
		}
		return nil
	})
	if _, at := g.made(t, request("one", gib)); at != "nb" {
		t.Errorf("it is on %s", at)
	}
}
