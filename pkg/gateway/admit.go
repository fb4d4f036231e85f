package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	// handshakePatience is what a stranger has for TLS.
	handshakePatience = 3 * time.Second
	// mostIntroductionBytes is how large one may be: a token and all pools.
	mostIntroductionBytes = 256 << 10
)

// Serve admits agents until ctx ends. The listener is of TCP, and config for TLS on it.
func (g *Gateway) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // that it is closed is all
	defer stop()
	g.fleet.begin()
	for number := uint64(1); ; number++ {
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
		all.Go(func() {
			log := klog.FromContext(ctx).WithValues("from", c.RemoteAddr().String())
			err := g.attend(klog.NewContext(ctx, log), c, config, number)
			switch {
			case ctx.Err() != nil:
			case status.Code(err) == codes.AlreadyExists: // it is here, by another of our addresses
				log.V(2).Info("An agent's connection ended", "why", err)
			default:
				log.Info("An agent's connection ended", "why", err)
			}
		})
	}
}

// attend admits an agent, and follows what it says until it goes.
func (g *Gateway) attend(serving context.Context, c net.Conn, config *tls.Config, number uint64) error {
	ctx, cancel := context.WithCancelCause(serving)
	defer cancel(nil)
	defer c.Close()
	turnAway := func(why error) {
		cancel(why)
		_ = c.Close()
	}
	stranger := g.door.enter(c.RemoteAddr(), turnAway)
	defer stranger.leave()
	late := time.AfterFunc(g.Patience.Admit, func() {
		turnAway(fmt.Errorf("it has not introduced itself within %v", g.Patience.Admit))
	})
	defer late.Stop()
	secure, err := handshake(ctx, c, config)
	if err != nil {
		return because(ctx, err)
	}
	conn, err := client(secure)
	if err != nil {
		return err
	}
	defer conn.Close()
	go closeWhenLost(ctx, conn, cancel)
	v := &visit{gateway: g, link: &link{conn: conn, visit: number}}
	said, err := gatewaypb.NewAgentClient(conn).Introduce(ctx,
		&gatewaypb.IntroduceRequest{Version: g.Version, Instance: g.instance}, grpc.MaxCallRecvMsgSize(mostIntroductionBytes))
	if err != nil {
		return because(ctx, err)
	}
	first, err := said.Recv()
	if err != nil {
		return because(ctx, err)
	}
	if err := v.introduced(ctx, first, stranger); err != nil {
		return err
	}
	if !late.Stop() {
		return because(ctx, context.Canceled)
	}
	err = v.hear(ctx, first)
	if err == nil {
		err = v.follow(ctx, said)
	}
	if g.fleet.leave(v.node, v.link) {
		klog.FromContext(ctx).Info("An agent is gone", "node", v.node)
	}
	if !errors.Is(err, ErrRefused) {
		v.link.calls.drain(serving)
	}
	return err
}

func handshake(ctx context.Context, c net.Conn, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakePatience)
	defer cancel()
	secure := tls.Server(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// because returns why ctx was ended, if it was.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
