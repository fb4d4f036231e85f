package gateway_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

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
