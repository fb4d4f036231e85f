package gateway_test

import (
	"context"
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
	c.node("na", 16*gib, only(&hung, func(string, any) bool { return true }))
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
