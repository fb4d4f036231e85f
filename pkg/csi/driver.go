package csi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/namelock"
)

// Name is the driver's, and the prefix of all that it names in the orchestrator.
const Name = "csi-dmthin.dev"

// topologyKey names a node.
const topologyKey = Name + "/node"

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
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	Options
	pools  pools
	places []*csi.Topology // of all volumes
	busy   namelock.Locks  // volumes and snapshots that a call is about
	asking namelock.Locks  // file systems that are asked how full they are
}

// New makes a driver. Its pools are opened by Open.
func New(o Options) *Driver {
	d := &Driver{Options: o, pools: o.Pools}
	d.places = []*csi.Topology{d.here()}
	return d
}

// Register gives the driver's services to a gRPC server.
func (d *Driver) Register(s grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(s, d)
	csi.RegisterControllerServer(s, d)
	csi.RegisterNodeServer(s, d)
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
		if err == nil && !open {
			log.Info("A pool is open", "took", time.Since(begin))
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

var topologyValue = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

// segment is the node's name as a topology may have it: hashed where that is too long.
func (d *Driver) segment() string {
	if topologyValue.MatchString(d.Node) {
		return d.Node
	}
	sum := sha256.Sum256([]byte(d.Node))
	return hex.EncodeToString(sum[:16])
}

// here is the node's topology.
func (d *Driver) here() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{topologyKey: d.segment()}}
}

// isHere reports whether a topology is this node's.
func (d *Driver) isHere(t *csi.Topology) bool {
	for key, value := range t.GetSegments() {
		if key == topologyKey && value != d.segment() {
			return false
		}
	}
	return true
}
