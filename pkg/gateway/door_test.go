package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/gatewaypb"
)

// Connections on which nobody introduces himself do not stay, and however many they are,
// they keep no agent out meanwhile.
func TestSilentConnections(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Admit = 3 * time.Second })
	c.node("na", 8*gib)
	g.knows(t, "na")
	trust, err := c.vault.trust()
	if err != nil {
		t.Fatal(err)
	}
	var silent []net.Conn
	for i := range 600 {
		conn, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		if silent = append(silent, conn); i%100 == 0 { // who has spoken TLS is no better
			secure := tls.Client(conn, &tls.Config{RootCAs: trust, ServerName: gateway.ServerName})
			_ = secure.Handshake() // it may be turned away already
		}
	}
	begin := time.Now()
	c.node("nb", 8*gib)
	g.knows(t, "na", "nb")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("an agent was kept out for %v", took)
	}
	for _, conn := range silent {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		buffer := make([]byte, 4<<10)
		for {
			if _, err = conn.Read(buffer); err != nil {
				break
			}
		}
		if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
			t.Fatalf("a silent connection was kept: %v", err)
		}
		_ = conn.Close()
	}
}

// Who speaks no TLS has three seconds, whatever the others have.
func TestNoHandshake(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Admit = time.Minute })
	conn, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Read(make([]byte, 1))
	if took := time.Since(begin); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("it was kept for %v", took)
	}
}

// Idle connections from as many addresses as there may be keep nobody out either.
func TestSilentConnectionsOfManyAddresses(t *testing.T) {
	c := newCluster(t)
	g := c.controllerOn(func(l net.Listener) net.Listener { return &from{Listener: l} })
	for range 512 {
		conn, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	begin := time.Now()
	c.node("na", 8*gib)
	g.knows(t, "na")
	if took := time.Since(begin); took > time.Second {
		t.Errorf("an agent was kept out for %v", took)
	}
}

// All agents may come from one address, and have their tokens looked at slowly: each has
// that done once.
func TestAgentsBehindOneAddress(t *testing.T) {
	const many = 100
	c := newCluster(t)
	var reviews atomic.Int32
	var one sync.Mutex
	g := c.controller(func(o *gateway.Options) {
		o.Review = reviewer(func(token string) (string, error) {
			one.Lock()
			defer one.Unlock()
			reviews.Add(1)
			time.Sleep(10 * time.Millisecond)
			return token, nil
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for i := range many {
		a := &gateway.Agent{
			Version: "1.3", Find: c.addresses, Trust: c.vault.trust,
			Token:    func() (string, error) { return fmt.Sprint("n", i), nil },
			Pools:    func() []gateway.Pool { return nil },
			Services: func(grpc.ServiceRegistrar) {},
		}
		all.Go(func() { a.Run(ctx) })
	}
	until(t, func() error {
		if n := len(g.gateway.Nodes()); n != many {
			return fmt.Errorf("%d are here", n)
		}
		return nil
	})
	if n := reviews.Load(); n > many {
		t.Errorf("there were %d reviews", n)
	}
}

// Headers are small, whoever sends them: a stranger may send some.
func TestLargeHeaders(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	trust, err := c.vault.trust()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", g.address, &tls.Config{RootCAs: trust, ServerName: gateway.ServerName})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	large := &talkative{sent: make(chan error, 1)}
	gatewaypb.RegisterAgentServer(server, large)
	go func() { _ = server.Serve(gateway.NewSingle(conn)) }()
	defer server.Stop()
	if err := <-large.sent; err == nil {
		t.Error("a megabyte was sent to it")
	}
	g.knows(t)
}

// talkative sends a megabyte of headers.
type talkative struct {
	gatewaypb.UnimplementedAgentServer
	sent chan error
}

func (l *talkative) Introduce(_ *gatewaypb.IntroduceRequest, to grpc.ServerStreamingServer[gatewaypb.Introduction]) error {
	err := to.SendHeader(metadata.Pairs("x", strings.Repeat("~", 1<<20)))
	if err == nil {
		err = to.Send(&gatewaypb.Introduction{Version: "1.3", Token: "token of na"})
	}
	l.sent <- err
	return err
}

// from is a listener whose connections come from addresses of their own.
type from struct {
	net.Listener
	n atomic.Int32
}

type comes struct {
	net.Conn
	from string
}

func (c comes) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", c.from)
	return a
}

func (l *from) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := l.n.Add(1)
	return comes{c, fmt.Sprintf("10.0.%d.%d:1", n/250, n%250)}, nil
}

// An agent that is reached by a controller at several addresses has one connection, which
// stays.
func TestTwoAddressesOfOneController(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	cut := &cutter{}
	n := c.node("na", 8*gib, cut.between(t, g.address), func(a *gateway.Agent) {
		other := a.Find
		a.Find = func(ctx context.Context) ([]string, error) {
			all, err := other(ctx)
			return append(all, g.address), err
		}
	})
	g.knows(t, "na")
	until(t, func() error {
		for _, err := range n.agent.Connections() {
			if err != nil && strings.Contains(err.Error(), "already") {
				return nil
			}
		}
		return fmt.Errorf("the connections are %v", n.agent.Connections())
	})
	for range 50 { // the one that stays is not replaced
		if len(g.gateway.Nodes()) != 1 {
			t.Fatal("the agent is gone")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, at := g.made(t, request("one", gib, "na")); at != "na" {
		t.Errorf("it is on %s", at)
	}
}

// An agent that ends answers the calls that are being carried out, and takes no new ones.
func TestAgentEndsInMidCall(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	held := newGate("CreateVolume")
	na := c.node("na", 8*gib, held.within)
	g.knows(t, "na")
	answered := make(chan error, 1)
	go func() { answered <- second(g.CreateVolume(context.Background(), request("one", gib, "na"))) }()
	<-held.entered
	ended := make(chan struct{})
	go func() { defer close(ended); na.stop() }()
	g.knows(t) // at once
	select {
	case err := <-answered:
		t.Fatalf("the call was cut off: %v", err)
	case <-ended:
		t.Fatal("the agent has not waited")
	case <-time.After(100 * time.Millisecond):
	}
	close(held.open)
	if err := <-answered; err != nil {
		t.Errorf("the call: %v", err)
	}
	<-ended
}

// A call whose connection was lost is waited for as well when the agent ends: the driver
// ends next.
func TestAgentEndsAfterItsConnection(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	cut := &cutter{}
	held := newGate("CreateVolume")
	na := c.node("na", 8*gib, held.within, cut.between(t, g.address))
	g.knows(t, "na")
	go func() { _ = second(g.CreateVolume(context.Background(), request("one", gib, "na"))) }()
	<-held.entered
	cut.cut()
	g.knows(t)
	ended := make(chan struct{})
	go func() { defer close(ended); na.stop() }()
	select {
	case <-ended:
		t.Error("it has not waited")
	case <-time.After(200 * time.Millisecond):
	}
	close(held.open)
	<-ended
}

// A connection that is lost while its token is looked at does not come back in place of the
// one that has followed.
func TestLostInReview(t *testing.T) {
	c := newCluster(t)
	slow, reviewed := make(chan struct{}), make(chan struct{}, 10)
	g := c.controller(func(o *gateway.Options) {
		o.Review = reviewer(func(token string) (string, error) {
			if strings.HasSuffix(token, "slow") {
				reviewed <- struct{}{}
				<-slow
			}
			return "na", nil
		})
	})
	cut := &cutter{}
	var token atomic.Value
	token.Store("quick")
	na := c.node("na", 8*gib, cut.between(t, g.address), func(a *gateway.Agent) {
		a.Token = func() (string, error) { return token.Load().(string), nil }
	})
	g.knows(t, "na")
	token.Store("slow")
	<-reviewed
	token.Store("quick again")
	cut.cut()
	until(t, func() error { return second(g.CreateVolume(t.Context(), request("one", gib, "na"))) }) // it is here anew
	close(slow)
	for range 50 {
		if len(g.gateway.Nodes()) != 1 {
			t.Fatal("the connection was closed by the one before")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := second(g.DeleteVolume(t.Context(), deletionOf(na, "one"))); err != nil {
		t.Error(err)
	}
}

// A new token is not believed before somebody has looked at it.
func TestNewTokenWhileNobodyCanLook(t *testing.T) {
	c := newCluster(t)
	expired, valid := "e30.eyJleHAiOjF9.e30", "e30.eyJleHAiOjQxMDI0NDQ4MDB9.e30" // 1970, 2100
	var failing atomic.Bool
	g := c.controller(func(o *gateway.Options) {
		o.Patience.Review = 20 * time.Millisecond
		o.Review = reviewer(func(string) (string, error) {
			if failing.Load() {
				return "", errors.New("the API server is away")
			}
			return "na", nil
		})
	})
	var token atomic.Value
	token.Store(valid)
	c.node("na", 8*gib, func(a *gateway.Agent) { a.Token = func() (string, error) { return token.Load().(string), nil } })
	g.knows(t, "na")
	failing.Store(true)
	token.Store(expired) // whatever it says of itself: the one before is what counts
	time.Sleep(2500 * time.Millisecond)
	g.knows(t, "na")

	other := c.controller(func(o *gateway.Options) {
		o.Review = reviewer(func(string) (string, error) { return "", errors.New("the API server is away") })
	})
	time.Sleep(100 * time.Millisecond)
	other.knows(t) // nobody is admitted unseen
}

// boundless is an agent with more pools, or longer names, than anybody has.
func TestBoundlessIntroductions(t *testing.T) {
	for why, pools := range map[string][]gateway.Pool{
		"names": {{Name: strings.Repeat("x", 300), Secret: "s", Open: true}},
		"pools": make([]gateway.Pool, 300),
		"bytes": {{Name: strings.Repeat("x", 1<<20), Secret: "s", Open: true}},
	} {
		t.Run(why, func(t *testing.T) {
			c := newCluster(t)
			g := c.controller()
			n := c.node("na", 8*gib, func(a *gateway.Agent) { a.Pools = func() []gateway.Pool { return pools } })
			until(t, func() error {
				for _, err := range n.agent.Connections() {
					if err != nil && !strings.Contains(err.Error(), "dialling") {
						return nil
					}
				}
				return errors.New("it was not turned away yet")
			})
			g.knows(t)
		})
	}
}
