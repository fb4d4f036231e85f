package csi

import (
	"context"
	"errors"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/namelock"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Options are what a Driver is made of.
type Options struct {
	Version    string
	Node       string // its name in the orchestrator
	KubeletDir string // below which volumes are staged and published
	Host       Host
	Pools      []*Pool
}

// A Driver answers CSI's calls for the pools of one node.
type Driver struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	Identity plugin.Identity

	Options
	pools   pools
	places  []*csi.Topology // of all volumes
	running running         // calls that change something
	asking  namelock.Locks  // file systems that are asked how full they are
}

// New makes a driver. Its pools are opened by Open.
func New(o Options) *Driver {
	return &Driver{
		Identity: plugin.Identity{Version: o.Version}, Options: o, pools: o.Pools,
		places: []*csi.Topology{plugin.Topology(o.Node)},
	}
}

// Register gives the driver's services to a gRPC server.
func (d *Driver) Register(s grpc.ServiceRegistrar) {
	d.RegisterController(s)
	csi.RegisterNodeServer(s, d)
}

// RegisterController is Register without the calls that only the node itself has.
func (d *Driver) RegisterController(s grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(s, &d.Identity)
	csi.RegisterControllerServer(s, d)
}

// Open opens all pools, and goes on trying with those that cannot be opened until ctx
// ends. None waits for another.
func (d *Driver) Open(ctx context.Context) {
	var all sync.WaitGroup
	for _, p := range d.pools {
		all.Go(func() { p.openPatiently(ctx) })
	}
	all.Wait()
}

const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

func (p *Pool) openPatiently(ctx context.Context) {
	log := klog.FromContext(ctx).WithValues("pool", p.Name)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		begin, open := time.Now(), p.Key() != ""
		err := p.TryOpen()
		switch {
		case err == nil && !open && p.isEmpty():
			log.Info("A pool is not in the configuration, and empty: it stays closed")
		case err == nil && !open:
			log.Info("A pool is open", "took", time.Since(begin), "configured", !p.Retired)
		}
		if err == nil {
			return
		}
		log.Error(err, "A pool cannot be opened")
		if sleep(ctx, wait); ctx.Err() != nil {
			return
		}
	}
}

// Close lets go of all pools. What is mounted stays mounted.
func (d *Driver) Close() (err error) {
	for _, p := range d.pools {
		err = errors.Join(err, p.close())
	}
	return err
}
