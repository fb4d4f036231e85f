package gateway_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

const gib = int64(1) << 30

// patience that tests have.
var patience = gateway.Patience{
	Start: time.Nanosecond, Hold: 500 * time.Millisecond, Absent: time.Minute, Admit: 5 * time.Second, Ask: 2 * time.Second,
}

// tokens review a token that is the name of its node; and refuse others.
type tokens struct {
	mu      sync.Mutex
	refused map[string]string
	failing bool
	asked   int
}

func (r *tokens) Review(_ context.Context, token string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.failing {
		return "", errors.New("the API server is away")
	}
	if why := r.refused[token]; why != "" {
		return "", fmt.Errorf("%w: %s", gateway.ErrRefused, why)
	}
	node, ok := strings.CutPrefix(token, "token of ")
	if !ok {
		return "", gateway.ErrRefused
	}
	node, _, _ = strings.Cut(node, ",")
	return node, nil
}

func (r *tokens) set(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

// A vault is kept in memory.
type vault struct {
	mu        sync.Mutex
	kept      map[string][]byte
	version   int
	published []byte
	stores    int
	before    func() // each Store
}

func (v *vault) Load(context.Context) (map[string][]byte, string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.kept == nil {
		return nil, "", nil
	}
	return v.kept, fmt.Sprint(v.version), nil
}

func (v *vault) Store(_ context.Context, kept map[string][]byte, version string) error {
	if v.before != nil {
		v.before()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if have := fmt.Sprint(v.version); v.kept != nil && version != have || v.kept == nil && version != "" {
		return gateway.ErrConflict
	}
	v.kept = kept
	v.version++
	v.stores++
	return nil
}

func (v *vault) Publish(_ context.Context, bundle []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.published = bundle
	return nil
}

func (v *vault) trust() (*x509.CertPool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(v.published) {
		return nil, errors.New("nothing is published yet")
	}
	return pool, nil
}

// A cluster has controllers and agents.
type cluster struct {
	t      *testing.T
	tokens *tokens
	vault  *vault
	lost   sync.Map
	wrap   func(net.Listener) net.Listener // what agents come to

	mu          sync.Mutex
	controllers []*controller
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return &cluster{t: t, tokens: &tokens{refused: map[string]string{}}, vault: &vault{}, wrap: func(l net.Listener) net.Listener { return l }}
}

// A controller is a gateway, and the sidecars' connection to it.
type controller struct {
	spec.IdentityClient
	spec.ControllerClient
	gateway *gateway.Gateway
	address string
	stop    func()
}

// controller starts one. It ends with the test, or by stop.
func (c *cluster) controller(change ...func(*gateway.Options)) *controller {
	c.t.Helper()
	return c.controllerAt("127.0.0.1:0", change...)
}

func (c *cluster) controllerAt(address string, change ...func(*gateway.Options)) *controller {
	c.t.Helper()
	return c.controllerWith(gateway.NewAuthority(c.vault), address, change...)
}

// controllerOn starts one on a listener that is made something of.
func (c *cluster) controllerOn(wrap func(net.Listener) net.Listener) *controller {
	c.t.Helper()
	c.wrap = wrap
	return c.controller()
}

func (c *cluster) controllerWith(keys *gateway.Authority, address string, change ...func(*gateway.Options)) *controller {
	c.t.Helper()
	o := gateway.Options{Version: "1.3", Review: c.tokens, Patience: patience, Lost: func(key string) bool {
		_, lost := c.lost.Load(key)
		return lost
	}}
	for _, change := range change {
		change(&o)
	}
	g := gateway.New(o)
	if err := keys.Renew(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	var l net.Listener
	var err error
	for range 100 { // a port of a controller that has just ended
		if l, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := g.Serve(ctx, c.wrap(l), keys.TLS()); err != nil {
			c.t.Error(err)
		}
	})
	server := grpc.NewServer(grpc.UnaryInterceptor(gateway.Intercept(nil)))
	g.Register(server)
	side := bufconn.Listen(1 << 20)
	all.Go(func() { _ = server.Serve(side) })
	conn, err := grpc.NewClient("passthrough:///controller", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return side.Dial() }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		c.t.Fatal(err)
	}
	one := &controller{
		IdentityClient: spec.NewIdentityClient(conn), ControllerClient: spec.NewControllerClient(conn), gateway: g, address: l.Addr().String(),
	}
	one.stop = sync.OnceFunc(func() {
		_ = conn.Close()
		server.Stop()
		cancel()
		all.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, other := range c.controllers {
			if other == one {
				c.controllers = append(c.controllers[:i], c.controllers[i+1:]...)
				break
			}
		}
	})
	c.t.Cleanup(one.stop)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.controllers = append(c.controllers, one)
	return one
}

// A node is an agent with a driver on a simulated machine.
type node struct {
	*csitest.Node
	name  string
	world *csitest.World
	agent *gateway.Agent
	stop  func()
}

// node starts an agent whose default pool has so much data.
func (c *cluster) node(name string, data int64, change ...func(*gateway.Agent)) *node {
	c.t.Helper()
	return c.nodeOn(name, csitest.NewWorldOf(c.t.TempDir(), data), change...)
}

func (c *cluster) nodeOn(name string, w *csitest.World, change ...func(*gateway.Agent)) *node {
	c.t.Helper()
	w.Node = name
	n := &node{Node: w.Run(c.t), name: name, world: w}
	c.connect(n, change...)
	return n
}

// connect starts an agent, for all controllers that are there.
func (c *cluster) connect(n *node, change ...func(*gateway.Agent)) {
	c.t.Helper()
	n.agent = &gateway.Agent{
		Version: "1.3", Again: 20 * time.Millisecond,
		Token: func() (string, error) { return "token of " + n.name, nil },
		Trust: c.vault.trust,
		Pools: func() (all []gateway.Pool) {
			for _, p := range n.Driver.Pools {
				all = append(all, gateway.Pool{Name: p.Name, Secret: p.Secret(), Open: p.IsOpen()})
			}
			return all
		},
		Services: n.Driver.RegisterController, Intercept: n.Driver.Intercept(nil),
		Find: c.addresses,
	}
	for _, change := range change {
		change(n.agent)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.agent.Run(ctx) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	c.t.Cleanup(n.stop)
}

func (c *cluster) addresses(context.Context) (all []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.controllers {
		all = append(all, one.address)
	}
	return all, nil
}

// knows waits until a controller has admitted the agents of these nodes, and no other.
func (c *controller) knows(t *testing.T, nodes ...string) {
	t.Helper()
	until(t, func() error {
		have := c.gateway.Nodes()
		if len(have) != len(nodes) {
			return fmt.Errorf("the controller knows %v, want %v", have, nodes)
		}
		for _, n := range nodes {
			if _, ok := have[n]; !ok {
				return fmt.Errorf("the controller knows %v, want %v", have, nodes)
			}
		}
		return nil
	})
}

func until(t *testing.T, is func() error) {
	t.Helper()
	end := time.Now().Add(15 * time.Second)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// key returns that of a node's pool.
func (n *node) key(pool string) string {
	for _, p := range n.Driver.Pools {
		if p.Name == pool {
			return p.Key()
		}
	}
	return ""
}

func request(name string, size int64, where ...string) *spec.CreateVolumeRequest {
	r := &spec.CreateVolumeRequest{
		Name: name, CapacityRange: &spec.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: []*spec.VolumeCapability{{
			AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{}},
			AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	}
	if len(where) > 0 {
		r.AccessibilityRequirements = &spec.TopologyRequirement{}
		for _, node := range where {
			r.AccessibilityRequirements.Requisite = append(r.AccessibilityRequirements.Requisite, plugin.Topology(node))
			r.AccessibilityRequirements.Preferred = append(r.AccessibilityRequirements.Preferred, plugin.Topology(node))
		}
	}
	return r
}

func deletion(of *spec.CreateVolumeResponse) *spec.DeleteVolumeRequest {
	return &spec.DeleteVolumeRequest{VolumeId: of.GetVolume().GetVolumeId()}
}

func inPool(r *spec.CreateVolumeRequest, pool string) *spec.CreateVolumeRequest {
	r.Parameters = map[string]string{plugin.ParameterPrefix + "pool": pool}
	return r
}

// made makes a volume, and returns it and the node it is on.
func (c *controller) made(t *testing.T, r *spec.CreateVolumeRequest) (*spec.Volume, string) {
	t.Helper()
	answer, err := c.CreateVolume(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	places := answer.GetVolume().GetAccessibleTopology()
	if len(places) != 1 || len(places[0].GetSegments()) != 1 {
		t.Fatalf("the volume is at %v", places)
	}
	return answer.GetVolume(), places[0].GetSegments()[plugin.TopologyKey]
}

func refuses(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("code is %v, want %v: %v", s.Code(), code, err)
	}
	for _, word := range words {
		if !strings.Contains(s.Message(), word) {
			t.Errorf("the message has no %q: %s", word, s.Message())
		}
	}
}

func volumesOf(t *testing.T, n *node) (names []string) {
	t.Helper()
	for token := ""; ; {
		page, err := n.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEntries() {
			_, device, _ := strings.Cut(e.GetVolume().GetVolumeId(), ".")
			names = append(names, strings.TrimPrefix(device, "v-"))
		}
		if token = page.GetNextToken(); token == "" {
			return names
		}
	}
}
