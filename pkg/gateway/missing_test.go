package gateway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"

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
			until(t, func() error {
				if _, err := g.CreateVolume(t.Context(), request("one", gib, "na")); !strings.Contains(err.Error(), codes.ResourceExhausted.String()) {
					return err
				}
				return nil
			})
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
	c.nodeOn("na", w, func(a *gateway.Agent) {
		pools := a.Pools
		a.Pools = func() []gateway.Pool {
			all := pools()
			for i := range all {
				if all[i].Name == "default" {
					all[i].Open, all[i].Secret = false, ""
				}
			}
			return all
		}
	})
	g.knows(t, "na")
	_, err := g.CreateVolume(t.Context(), request("one", gib))
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
	_, err = g.CreateVolume(t.Context(), request("other", gib, "na"))
	refuses(t, err, codes.ResourceExhausted, "node na", "answers no question")
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
