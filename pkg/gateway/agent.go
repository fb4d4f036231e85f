package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/gatewaypb"
)

// ServerName is the controller's, in its certificate.
const ServerName = "csi-dmthin-controller"

// A Pool is what an agent tells of one.
type Pool struct {
	Name   string
	Secret string // none until the pool was open for the first time
	Open   bool
}

// An Agent serves CSI to all controllers that it finds.
type Agent struct {
	Version string
	// Find returns the addresses of the controllers, each with its port.
	Find func(context.Context) ([]string, error)
	// Again is how often it is asked, and up to a fifth less often; 10 s, if it is 0.
	Again time.Duration
	// Token returns the token that proves the agent's node.
	Token func() (string, error)
	// Trust returns the certificates by which a controller is known. It is asked at each
	// dial: they change.
	Trust func() (*x509.CertPool, error)
	// Pools returns those of the node.
	Pools func() []Pool
	// Services gives a server what it serves beside the agent's own.
	Services func(grpc.ServiceRegistrar)
	// Intercept surrounds each call.
	Intercept grpc.UnaryServerInterceptor

	calls inFlight

	mu          sync.Mutex
	links       map[string]error  // of each address, why there is no connection
	controllers map[string]string // the addresses by which they were reached, by their instances
}

const (
	findAgain    = 10 * time.Second
	lookAgain    = 2 * time.Second // at what the agent tells of itself
	firstDial    = 500 * time.Millisecond
	lastDial     = 10 * time.Second
	dialPatience = 10 * time.Second
	lastCalls    = 20 * time.Second // that calls have when the agent ends
)

var errSame = errors.New("it is a controller that is connected already, by another address")

// Run keeps a connection with each controller until ctx ends, and then waits for the
// calls that are being carried out. That there is no controller makes no difference to the
// node.
func (a *Agent) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer func() {
		all.Wait()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCalls)
		defer cancel()
		a.calls.drain(late) // those, too, whose connection was lost
	}()
	again := a.Again
	if again == 0 {
		again = findAgain
	}
	for ctx.Err() == nil {
		addresses, err := a.find(ctx)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("No controller is found", "why", err)
		}
		for _, address := range addresses {
			if a.begin(address) {
				all.Go(func() { a.keep(ctx, address) })
			}
		}
		sleep(ctx, again+rand.N(again/5))
	}
}

func (a *Agent) find(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	return a.Find(ctx)
}

// Lookup returns a Find that looks a name up: each of its addresses is a controller.
func Lookup(hostport string) (func(context.Context) ([]string, error), error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]string, error) {
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		for i, address := range addresses {
			addresses[i] = net.JoinHostPort(address, port)
		}
		return addresses, err
	}, nil
}

// begin notes an address, unless it has somebody who cares for it.
func (a *Agent) begin(address string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.links[address]; ok {
		return false
	}
	if a.links == nil {
		a.links = map[string]error{}
	}
	a.links[address] = errors.New("dialling")
	return true
}

func (a *Agent) note(address string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.links[address]; ok {
		a.links[address] = err
	}
}

// meet notes by which address a controller was reached, unless it is connected by another
// one. The controllers of before there were instances have none.
func (a *Agent) meet(instance, address string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other, ok := a.controllers[instance]; ok && other != address {
		return errSame
	}
	if a.controllers == nil {
		a.controllers = map[string]string{}
	}
	if instance != "" {
		a.controllers[instance] = address
	}
	return nil
}

// part forgets the controller of an address.
func (a *Agent) part(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.controllers, func(_, at string) bool { return at == address })
}

// Connections returns why there is no connection with an address of a controller; nil
// where there is one.
func (a *Agent) Connections() map[string]error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.links)
}

// keep keeps a connection with an address, until no controller has it any more.
func (a *Agent) keep(ctx context.Context, address string) {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.links, address)
	}()
	log := klog.FromContext(ctx).WithValues("controller", address)
	for wait := firstDial; ctx.Err() == nil; wait = min(2*wait, lastDial) {
		begin := time.Now()
		err := a.link(klog.NewContext(ctx, log), address)
		a.note(address, err)
		if ctx.Err() != nil {
			return
		}
		pause := wait/2 + rand.N(wait)
		switch {
		case errors.Is(err, errSame):
			pause = lastDial
		default:
			log.Info("No connection with a controller", "why", err, "after", time.Since(begin))
		}
		if time.Since(begin) > lastDial {
			wait = firstDial
		}
		sleep(ctx, pause)
		if left, err := a.find(ctx); err == nil && !slices.Contains(left, address) {
			return
		}
	}
}

// link dials a controller and serves it until the connection is lost, and returns why.
func (a *Agent) link(ctx context.Context, address string) error {
	trust, err := a.Trust()
	if err != nil {
		return fmt.Errorf("whom to trust: %w", err)
	}
	dialling, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: trust, ServerName: ServerName, MinVersion: tls.VersionTLS13}}
	c, err := dialer.DialContext(dialling, "tcp", address)
	if err != nil {
		return err
	}
	return a.serve(ctx, c, address)
}

// serve serves CSI over one connection. Calls that are being carried out when it is lost
// are carried out to their ends; those that are when ctx ends are answered, too.
func (a *Agent) serve(ctx context.Context, c net.Conn, address string) error {
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(a.answer, a.Intercept),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	)
	a.Services(server)
	us := &introducer{agent: a, ended: ctx.Done(), address: address}
	gatewaypb.RegisterAgentServer(server, us)
	defer a.part(address)
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(lastCalls, server.Stop)
		defer late.Stop()
		server.GracefulStop()
	})
	defer stop()
	defer func() { go server.Stop() }() // it waits for calls
	err := server.Serve(newSingle(c))
	switch {
	case us.same.Load():
		return errSame
	case errors.Is(err, io.EOF):
		return errGone
	}
	return err
}

// answer marks what was answered here, so that the controller can tell it from what fails
// on the way; and refuses what an agent of this version does not understand.
func (a *Agent) answer(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	defer a.calls.begin()()
	if err := grpc.SetTrailer(ctx, metadata.Pairs(answeredKey, "1")); err != nil {
		return nil, err
	}
	if m, ok := r.(proto.Message); ok && hasUnknown(m) {
		return nil, status.Errorf(codes.Unavailable, "this node's agent is %s, and does not know all of what it is asked: the controller is newer", a.Version)
	}
	return handle(ctx, r)
}

// An introducer tells a controller about the agent.
type introducer struct {
	gatewaypb.UnimplementedAgentServer
	agent   *Agent
	ended   <-chan struct{}
	address string
	same    atomic.Bool // another address has this controller
}

func (i *introducer) Introduce(r *gatewaypb.IntroduceRequest, to grpc.ServerStreamingServer[gatewaypb.Introduction]) error {
	if err := i.agent.meet(r.GetInstance(), i.address); err != nil {
		i.same.Store(true)
		return status.Error(codes.AlreadyExists, err.Error())
	}
	log := klog.FromContext(to.Context()).WithValues("controller", i.address, "version", r.GetVersion())
	var last *gatewaypb.Introduction
	for {
		now, err := i.agent.introduction()
		switch {
		case err != nil && last == nil:
			return status.Errorf(codes.Unavailable, "the agent has no token: %v", err)
		case err == nil && !proto.Equal(now, last):
			if err := to.Send(now); err != nil {
				return err
			}
			if last == nil {
				log.Info("Introduced to a controller")
				i.agent.note(i.address, nil)
			}
			last = now
		}
		select {
		case <-time.After(lookAgain):
		case <-to.Context().Done():
			return to.Context().Err()
		case <-i.ended:
			return status.Error(codes.Unavailable, "the agent ends")
		}
	}
}

func (a *Agent) introduction() (*gatewaypb.Introduction, error) {
	token, err := a.Token()
	said := &gatewaypb.Introduction{Version: a.Version, Token: token}
	for _, p := range a.Pools() {
		said.Pools = append(said.Pools, &gatewaypb.Pool{Name: p.Name, Secret: p.Secret, Open: p.Open})
	}
	return said, err
}
