package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

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
