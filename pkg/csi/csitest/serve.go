package csitest

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
)

// Serve serves a driver on a socket until the test ends, and returns a connection.
func Serve(t testing.TB, d *csi.Driver, endpoint string) *grpc.ClientConn {
	t.Helper()
	d.Open(t.Context())
	l, err := csi.Listen(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	server := grpc.NewServer(grpc.UnaryInterceptor(d.Intercept(nil)))
	d.Register(server)
	return connect(t, server, l, "unix:"+strings.TrimPrefix(endpoint, "unix://"))
}

// A Client calls a driver as the orchestrator does.
type Client struct {
	spec.IdentityClient
	spec.ControllerClient
	spec.NodeClient
}

// A Node is a driver that runs in a process, and its client.
type Node struct {
	Client
	Driver  *csi.Driver
	Machine *simulated.Machine
}

// Run starts a process with a driver, waits until its pools are open, and serves it. The
// driver is closed when the test ends.
func (w *World) Run(t testing.TB, options ...string) *Node {
	t.Helper()
	n := w.Start(t, options...)
	t.Cleanup(func() {
		if err := n.Driver.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// Start is Run without the end: the process will be killed, or the test closes the
// driver.
func (w *World) Start(t testing.TB, options ...string) *Node {
	t.Helper()
	m := w.Process(nil)
	d := csi.New(w.Options(m, options...))
	for _, p := range d.Pools {
		if err := p.TryOpen(); err != nil {
			t.Fatal(err)
		}
	}
	return &Node{Connect(t, d, klog.Logger{}, nil), d, m}
}

// Connect serves a driver in memory until the test ends. Its log goes to log, and observe
// hears of each call.
func Connect(t testing.TB, d *csi.Driver, log klog.Logger, observe func(method, code string, took time.Duration)) Client {
	t.Helper()
	withLog := func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		return handle(klog.NewContext(ctx, log), r)
	}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(withLog, d.Intercept(observe)))
	d.Register(server)
	l := bufconn.Listen(1 << 20)
	c := connect(t, server, l, "passthrough:memory", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return l.DialContext(ctx)
	}))
	return Client{spec.NewIdentityClient(c), spec.NewControllerClient(c), spec.NewNodeClient(c)}
}

func connect(t testing.TB, server *grpc.Server, l net.Listener, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	go func() { _ = server.Serve(l) }() // until it is stopped
	c, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close() // it was only asked
		server.Stop()
	})
	return c
}
