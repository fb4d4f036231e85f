package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
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
