package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/gatewaypb"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A visit is the time for which an agent is connected.
type visit struct {
	gateway *Gateway
	link    *link
	node    string // by its token

	token string // that was found good
	shown string // the last that was shown
	look  time.Duration
	known bool
}

const (
	// reviewSoon is when a token is looked at again at which nobody could look.
	reviewSoon = 30 * time.Second
	// mostPools is how many an agent may have.
	mostPools = 256
	// mostNameBytes is how long their names may be.
	mostNameBytes = 253
)

// introduced finds out on which node an agent is, when it has its turn.
func (v *visit) introduced(ctx context.Context, said *gatewaypb.Introduction, at *stranger) (err error) {
	done, err := at.turn(ctx)
	if err != nil {
		return because(ctx, err)
	}
	defer done()
	if v.node, err = v.gateway.Review.Review(ctx, said.GetToken()); err != nil || ctx.Err() != nil {
		return because(ctx, err)
	}
	v.token, v.shown, v.look = said.GetToken(), said.GetToken(), v.gateway.nextLook(said.GetToken())
	return nil
}

// hear takes what an agent says of itself.
func (v *visit) hear(ctx context.Context, said *gatewaypb.Introduction) error {
	a := &agent{ControllerClient: csi.NewControllerClient(v.link.conn), link: v.link, node: v.node, version: said.GetVersion()}
	if n := len(said.GetPools()); n > mostPools {
		return fmt.Errorf("node %s: it says that it has %d pools", v.node, n)
	}
	log := klog.FromContext(ctx).WithValues("node", v.node)
	for _, p := range said.GetPools() {
		if len(p.GetName()) > mostNameBytes {
			return fmt.Errorf("node %s: it has a pool with the name %.40q...", v.node, p.GetName())
		}
		has := pool{name: p.GetName(), open: p.GetOpen()}
		if p.GetSecret() != "" {
			has.key = plugin.KeyOf(p.GetSecret())
		}
		if has.key != "" && v.gateway.Lost(has.key) {
			log.Info("A pool was declared lost in the ConfigMap csi-dmthin-lost, and is not used; its data stay", "pool", has.name, "key", has.key)
		}
		a.pools = append(a.pools, has)
	}
	replaced, ok := v.gateway.fleet.join(a)
	if !ok {
		return fmt.Errorf("node %s: the agent has come again meanwhile", v.node)
	}
	if replaced != nil {
		log.Info("An agent has come again: its older connection is closed")
		_ = replaced.conn.Close() // it is lost, or will be
	}
	if !v.known {
		log.Info("An agent is here", "version", a.version, "pools", len(a.pools))
	}
	v.known = true
	for key, nodes := range v.gateway.fleet.conflicts() {
		if _, ours := a.keyed(key); ours {
			log.Error(nil, "A pool is on several nodes at once, and is not used", "key", key, "nodes", nodes)
		}
	}
	return nil
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
	again := time.NewTimer(v.look)
	defer again.Stop()
	for {
		select {
		case next := <-news:
			if v.shown = next.GetToken(); v.shown != v.token {
				if err := v.review(ctx); err != nil {
					return err
				}
				again.Reset(v.look)
			}
			if err := v.hear(ctx, next); err != nil {
				return err
			}
		case <-again.C:
			if err := v.review(ctx); err != nil {
				return err
			}
			again.Reset(v.look)
		case err := <-failed:
			return because(ctx, err)
		case <-ctx.Done():
			return because(ctx, ctx.Err())
		}
	}
}

// review refuses an agent whose token is not good any more. That nobody can tell is no
// reason to part: the API server may be away for hours, and volumes are wanted all the
// same; but nobody goes on with a token that has expired, nor is a new one believed that
// nobody has looked at.
func (v *visit) review(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, v.gateway.Patience.Admit)
	defer cancel()
	node, err := v.gateway.Review.Review(asking, v.shown)
	switch {
	case ctx.Err() != nil: // the agent may be here anew
		return because(ctx, err)
	case errors.Is(err, ErrRefused):
		return err
	case err != nil && expired(v.token, time.Now()):
		return fmt.Errorf("its token has expired: %w", err)
	case err != nil:
		klog.FromContext(ctx).Info("An agent's token could not be looked at again", "node", v.node, "why", err)
		v.look = min(v.gateway.Patience.Review, reviewSoon)
		return nil
	case node != v.node:
		return fmt.Errorf("%w: its new token is one of node %s", ErrRefused, node)
	}
	v.token, v.look = v.shown, v.gateway.nextLook(v.shown)
	return nil
}

// nextLook returns after what time a token that was found good is looked at again: in
// any case before its end, so that there is time for a second look.
func (g *Gateway) nextLook(token string) time.Duration {
	next := g.Patience.Review
	if end, ok := expiry(token); ok {
		next = min(next, max(time.Until(end)-2*reviewSoon, reviewSoon))
	}
	return next
}
