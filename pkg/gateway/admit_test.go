package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

// Whoever has no token of an agent is not admitted, whatever is wrong with it.
func TestStrangers(t *testing.T) {
	for why, token := range map[string]string{
		"audience": "token of na, for others", "account": "token of na, of a tenant", "nothing": "",
	} {
		t.Run(why, func(t *testing.T) {
			c := newCluster(t)
			c.tokens.refused["token of na, for others"] = "audience"
			c.tokens.refused["token of na, of a tenant"] = "account"
			g := c.controller()
			n := c.node("na", 8*gib, func(a *gateway.Agent) { a.Token = func() (string, error) { return token, nil } })
			until(t, func() error {
				c.tokens.mu.Lock()
				defer c.tokens.mu.Unlock()
				if c.tokens.asked == 0 {
					return errors.New("nobody was asked about the token")
				}
				return nil
			})
			g.knows(t)
			_, err := g.CreateVolume(t.Context(), request("one", gib, "na"))
			refuses(t, err, codes.Unavailable)
			if len(volumesOf(t, n)) != 0 {
				t.Error("a volume was made by way of a stranger")
			}
		})
	}
}

// A controller that nobody vouches for gets no token.
func TestFalseController(t *testing.T) {
	c := newCluster(t)
	c.controller() // publishes whom to trust
	other := &vault{}
	keys := gateway.NewAuthority(other)
	if err := keys.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var admitted atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		_ = gateway.New(gateway.Options{Review: reviewer(func(string) (string, error) {
			admitted.Store(true)
			return "na", nil
		})}).Serve(ctx, l, keys.TLS())
	})
	defer all.Wait()
	defer cancel()
	n := c.node("na", 8*gib, func(a *gateway.Agent) {
		a.Find = func(context.Context) ([]string, error) { return []string{l.Addr().String()}, nil }
	})
	until(t, func() error {
		for _, err := range n.agent.Connections() {
			if err != nil && strings.Contains(err.Error(), "certificate") {
				return nil
			}
		}
		return errors.New("the agent has not refused a false controller yet")
	})
	if admitted.Load() {
		t.Error("it was shown a token")
	}
}

type reviewer func(string) (string, error)

func (r reviewer) Review(_ context.Context, token string) (string, error) { return r(token) }

// Old TLS is refused.
func TestOldTLS(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	trust, err := c.vault.trust()
	if err != nil {
		t.Fatal(err)
	}
	_, err = tls.Dial("tcp", g.address, &tls.Config{RootCAs: trust, ServerName: gateway.ServerName, MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS12})
	if err == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

// The token is looked at again: a refusal ends the connection, and nobody at home does
// not, before the token's own end.
func TestTokensAreReviewedAgain(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Review = 30 * time.Millisecond })
	c.node("na", 8*gib)
	g.knows(t, "na")
	c.tokens.set(func() { c.tokens.refused["token of na"] = "its pod is gone" })
	g.knows(t)
	c.tokens.set(func() { delete(c.tokens.refused, "token of na") })
	g.knows(t, "na")
	c.tokens.set(func() { c.tokens.failing = true }) // and this token says nothing about its end
	g.knows(t)
}

func TestReviewerAway(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) {
		o.Patience.Review = 20 * time.Millisecond
		o.Review = reviewer(func(token string) (string, error) {
			c.tokens.mu.Lock()
			defer c.tokens.mu.Unlock()
			c.tokens.asked++
			if c.tokens.failing {
				return "", errors.New("the API server is away")
			}
			return "na", nil
		})
	})
	// {"exp": 4102444800}, the year 2100
	c.node("na", 8*gib, func(a *gateway.Agent) {
		a.Token = func() (string, error) { return "e30.eyJleHAiOjQxMDI0NDQ4MDB9.e30", nil }
	})
	g.knows(t, "na")
	before := 0
	c.tokens.set(func() { c.tokens.failing, before = true, c.tokens.asked })
	until(t, func() error {
		c.tokens.mu.Lock()
		defer c.tokens.mu.Unlock()
		if c.tokens.asked < before+3 {
			return errors.New("nobody was asked again")
		}
		return nil
	})
	g.knows(t, "na")
}

// A token that is renewed is told at once; one of another node is not taken.
func TestRenewedToken(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	var token atomic.Value
	token.Store("token of na, the first")
	c.node("na", 8*gib, func(a *gateway.Agent) { a.Token = func() (string, error) { return token.Load().(string), nil } })
	g.knows(t, "na")
	token.Store("token of na, the second")
	until(t, func() error {
		c.tokens.mu.Lock()
		defer c.tokens.mu.Unlock()
		if c.tokens.asked < 2 {
			return errors.New("the second token was not looked at")
		}
		return nil
	})
	g.knows(t, "na")
	token.Store("token of nb")
	until(t, func() error {
		if _, ok := g.gateway.Nodes()["na"]; ok {
			return errors.New("na is there still")
		}
		return nil
	})
}

// One key on two nodes: neither is used, and both are named, until one is gone.
func TestOnePoolOnTwoNodes(t *testing.T) {
	c := newCluster(t)
	g := c.controller(soon)
	na := c.node("na", 8*gib)
	g.knows(t, "na")
	v, _ := g.made(t, request("one", gib, "na"))
	thief := c.node("nb", 8*gib, func(a *gateway.Agent) { a.Pools = na.agent.Pools })
	g.knows(t, "na", "nb")
	ctx := t.Context()
	_, err := g.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	refuses(t, err, codes.Unavailable, "na and nb", na.key("default"))
	for _, where := range [][]string{{"na"}, {"nb"}} {
		_, err = g.CreateVolume(ctx, request("two", gib, where...))
		refuses(t, err, codes.Unavailable, "na and nb")
	}
	_, err = g.CreateVolume(ctx, request("one", gib))
	refuses(t, err, codes.Unavailable)
	until(t, func() error { // a claim need not wait for ever
		_, err := g.CreateVolume(ctx, request("two", gib, "na"))
		if status.Code(err) == codes.ResourceExhausted {
			return nil
		}
		return errors.Join(errors.New("it waits"), err)
	})
	thief.stop()
	g.knows(t, "na")
	if _, err := g.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
		t.Error(err)
	}
}

// A second connection of a node replaces the first.
func TestSecondConnectionOfANode(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na := c.node("na", 8*gib)
	g.knows(t, "na")
	again := &node{Node: na.Node, name: "na", world: na.world}
	first := na.stop
	c.connect(again)
	time.Sleep(200 * time.Millisecond)
	first()
	g.knows(t, "na")
	if _, at := g.made(t, request("one", gib)); at != "na" {
		t.Errorf("it is on %s", at)
	}
}

// An agent answers for its own pools alone.
func TestAgentThatAnswersForOthers(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib)
	c.node("nb", 8*gib, func(a *gateway.Agent) { // it has another secret than it makes volumes with
		a.Pools = func() []gateway.Pool { return []gateway.Pool{{Name: "default", Secret: "something else", Open: true}} }
	})
	g.knows(t, "na", "nb")
	_, err := g.CreateVolume(t.Context(), request("one", gib, "nb"))
	refuses(t, err, codes.Internal, "nb", "not to be believed")
}

// A controller that comes later is found, and each has all agents.
func TestTwoControllers(t *testing.T) {
	c := newCluster(t)
	one := c.controller()
	c.node("na", 8*gib)
	one.knows(t, "na")
	two := c.controller()
	two.knows(t, "na")
	v, _ := one.made(t, request("one", gib, "na"))
	if _, err := two.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}); err != nil {
		t.Error(err)
	}
	one.stop()
	if _, at := two.made(t, request("two", gib)); at != "na" {
		t.Errorf("it is on %s", at)
	}
}

// Agents come back to a controller that was away, by themselves.
func TestReconnect(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib)
	for range 3 {
		g.knows(t, "na")
		address := g.address
		g.stop()
		time.Sleep(100 * time.Millisecond)
		g = c.controllerAt(address)
	}
	g.knows(t, "na")
}

// Five hundred agents come at once.
func TestFiveHundredAgents(t *testing.T) {
	c := newCluster(t)
	g := c.controllerOn(func(l net.Listener) net.Listener { return &from{Listener: l} })
	c.node("na", 8*gib)
	g.knows(t, "na")
	begin := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for i := range 499 {
		a := &gateway.Agent{
			Version: "1.3", Find: c.addresses, Trust: c.vault.trust,
			Token: func() (string, error) {
				return "token of node-" + string(rune('a'+i%26)) + strings.Repeat("x", i/26), nil
			},
			Pools: func() []gateway.Pool {
				return []gateway.Pool{{Name: "default", Secret: strings.Repeat("s", i+1), Open: true}}
			},
			Services: func(s grpc.ServiceRegistrar) { spec.RegisterControllerServer(s, noRoom{}) },
			Intercept: func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				return handle(ctx, r)
			},
		}
		all.Go(func() { a.Run(ctx) })
	}
	until(t, func() error {
		if n := len(g.gateway.Nodes()); n != 500 {
			return errors.New("not all agents are there")
		}
		return nil
	})
	t.Logf("500 agents after %v", time.Since(begin))
	begin = time.Now()
	if _, at := g.made(t, request("one", gib)); at != "na" {
		t.Errorf("it is on %s", at)
	}
	t.Logf("the roomiest of 500 asked and found in %v", time.Since(begin))
}

// noRoom is a driver without room.
type noRoom struct {
	spec.UnimplementedControllerServer
}

func (noRoom) GetCapacity(context.Context, *spec.GetCapacityRequest) (*spec.GetCapacityResponse, error) {
	return &spec.GetCapacityResponse{}, nil
}

func (noRoom) ControllerGetVolume(context.Context, *spec.ControllerGetVolumeRequest) (*spec.ControllerGetVolumeResponse, error) {
	return nil, errNotThere
}
