package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/gatewaypb"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Audience is whom an agent's token must be for.
const Audience = plugin.Name + "/gateway"

// A Reviewer tells on which node the agent is that has shown a token. ErrRefused is of a
// token that is none of an agent's; another error means that nobody could tell.
type Reviewer interface {
	Review(ctx context.Context, token string) (node string, err error)
}

// ErrRefused is of a token that does not prove an agent.
var ErrRefused = errors.New("refused")

const (
	// mostStrangers are those that have connected and were not admitted yet.
	mostStrangers = 64
	// mostAnswerBytes is how large an answer may be: a page of 1 000 volumes has 300 KB.
	mostAnswerBytes = 16 << 20
)

// Serve admits agents until ctx ends. The listener is of TCP, and config for TLS on it.
func (g *Gateway) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // that it is closed is all
	defer stop()
	strangers := make(chan struct{}, mostStrangers)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of files, say
			klog.FromContext(ctx).Error(err, "An agent cannot be accepted")
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		select {
		case strangers <- struct{}{}:
		case <-ctx.Done():
			_ = c.Close()
			return nil
		}
		all.Go(func() {
			admitted := sync.OnceFunc(func() { <-strangers })
			defer admitted()
			log := klog.FromContext(ctx).WithValues("from", c.RemoteAddr().String())
			if err := g.attend(klog.NewContext(ctx, log), c, config, admitted); err != nil && ctx.Err() == nil {
				log.Info("An agent's connection ended", "why", err)
			}
		})
	}
}

// attend introduces an agent, admits it, and follows what it says until it goes.
func (g *Gateway) attend(ctx context.Context, c net.Conn, config *tls.Config, admitted func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.Close()
	late := time.AfterFunc(g.Patience.Admit, func() {
		cancel(fmt.Errorf("it has not introduced itself within %v", g.Patience.Admit))
		_ = c.Close()
	})
	defer late.Stop()
	secure := tls.Server(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return because(ctx, fmt.Errorf("TLS: %w", err))
	}
	conn, err := client(secure)
	if err != nil {
		return err
	}
	defer conn.Close()
	go closeWhenLost(ctx, conn, cancel)
	said, err := gatewaypb.NewAgentClient(conn).Introduce(ctx, &gatewaypb.IntroduceRequest{Version: g.Version})
	if err != nil {
		return because(ctx, err)
	}
	first, err := said.Recv()
	if err != nil {
		return because(ctx, err)
	}
	node, err := g.Review.Review(ctx, first.GetToken())
	if err != nil {
		return because(ctx, err)
	}
	if !late.Stop() {
		return because(ctx, context.Canceled)
	}
	admitted()
	defer g.leave(ctx, conn, node)
	v := &visit{gateway: g, conn: conn, node: node}
	v.hear(ctx, first)
	return v.follow(ctx, said)
}

func (g *Gateway) leave(ctx context.Context, conn *grpc.ClientConn, node string) {
	if g.fleet.leave(conn) {
		klog.FromContext(ctx).Info("An agent is gone", "node", node)
	}
}

// because returns why ctx was ended, if it was.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// client returns a client over a connection that is there already. When it is lost, so
// is the client.
func client(c net.Conn, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	once := make(chan net.Conn, 1)
	once <- c
	return grpc.NewClient("passthrough:///agent", append(options,
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection was lost")
			}
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is below
		grpc.WithIdleTimeout(0),                                  // it could not be dialled again
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostAnswerBytes)),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
	)...)
}

// closeWhenLost ends ctx as soon as the connection is not ready any more.
func closeWhenLost(ctx context.Context, conn *grpc.ClientConn, cancel context.CancelCauseFunc) {
	conn.Connect()
	for state := conn.GetState(); ; state = conn.GetState() {
		switch state {
		case connectivity.TransientFailure, connectivity.Shutdown:
			cancel(errors.New("the connection was lost"))
			return
		case connectivity.Ready:
			conn.WaitForStateChange(ctx, state)
			cancel(errors.New("the connection was lost"))
			return
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// A visit is the time for which an agent is connected.
type visit struct {
	gateway *Gateway
	conn    *grpc.ClientConn
	node    string

	token string
	known bool
}

// hear takes what an agent says of itself.
func (v *visit) hear(ctx context.Context, said *gatewaypb.Introduction) {
	a := &agent{
		ControllerClient: csi.NewControllerClient(v.conn), node: v.node, version: said.GetVersion(), conn: v.conn, pools: map[string]string{},
	}
	log := klog.FromContext(ctx).WithValues("node", v.node)
	for _, p := range said.GetPools() {
		key := plugin.KeyOf(p.GetSecret())
		if v.gateway.Lost(key) {
			log.Info("A pool was declared lost in the ConfigMap csi-dmthin-lost, and is not used; its data stay", "pool", p.GetName(), "key", key)
		}
		a.pools[key] = p.GetName()
	}
	v.token = said.GetToken()
	replaced := v.gateway.fleet.join(a)
	if replaced != nil {
		log.Info("An agent has come again: its older connection is closed")
		_ = replaced.conn.Close() // it is lost, or will be
	}
	if !v.known {
		log.Info("An agent is here", "version", a.version, "pools", a.pools)
	}
	v.known = true
	for key, nodes := range v.gateway.fleet.conflicts() {
		if _, ours := a.pools[key]; ours {
			log.Error(nil, "A pool is on several nodes at once, and is not used", "key", key, "nodes", nodes)
		}
	}
}

// follow hears the agent, and has its token looked at again.
func (v *visit) follow(ctx context.Context, said grpc.ServerStreamingClient[gatewaypb.Introduction]) error {
	news, failed := make(chan *gatewaypb.Introduction), make(chan error, 1)
	go func() {
		for {
			next, err := said.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case news <- next:
			case <-ctx.Done():
				return
			}
		}
	}()
	again := time.NewTicker(v.gateway.Patience.Review)
	defer again.Stop()
	for {
		select {
		case next := <-news:
			if next.GetToken() != v.token {
				if err := v.review(ctx, next.GetToken()); err != nil {
					return err
				}
			}
			v.hear(ctx, next)
		case <-again.C:
			if err := v.review(ctx, v.token); err != nil {
				return err
			}
		case err := <-failed:
			return because(ctx, err)
		case <-ctx.Done():
			return because(ctx, ctx.Err())
		}
	}
}

// review refuses an agent whose token is not good any more. That nobody can tell is no
// reason to part: the API server may be away for hours, and volumes are wanted all the
// same; but nobody goes on with a token that has expired.
func (v *visit) review(ctx context.Context, token string) error {
	asking, cancel := context.WithTimeout(ctx, v.gateway.Patience.Admit)
	defer cancel()
	node, err := v.gateway.Review.Review(asking, token)
	switch {
	case errors.Is(err, ErrRefused):
		return err
	case err != nil && expired(token, time.Now()):
		return fmt.Errorf("its token has expired: %w", err)
	case err != nil:
		klog.FromContext(ctx).Info("An agent's token could not be looked at again", "node", v.node, "why", err)
	case node != v.node:
		return fmt.Errorf("%w: its new token is one of node %s", ErrRefused, node)
	}
	return nil
}

// Nodes returns the nodes whose agents are connected, with the keys of their pools and
// the pools' names.
func (g *Gateway) Nodes() map[string]map[string]string {
	nodes := map[string]map[string]string{}
	for _, a := range g.fleet.all() {
		nodes[a.node] = maps.Clone(a.pools)
	}
	return nodes
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
