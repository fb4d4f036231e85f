package sanity

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

// A trust keeps a controller's keys, and whom an agent may trust.
type trust struct {
	mu        sync.Mutex
	kept      map[string][]byte
	published []byte
}

func (v *trust) Load(context.Context) (map[string][]byte, string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.kept, "", nil
}

func (v *trust) Store(_ context.Context, kept map[string][]byte, _ string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = kept
	return nil
}

func (v *trust) Publish(_ context.Context, bundle []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.published = bundle
	return nil
}

// anybody's token is that of this node.
type anybody struct{ node string }

func (a anybody) Review(context.Context, string) (string, error) { return a.node, nil }

// serveGateway serves a gateway with the agent of one node, and returns its endpoint.
func serveGateway(t *testing.T, driver *csi.Driver, dir string) string {
	t.Helper()
	keys := &trust{}
	authority := gateway.NewAuthority(keys)
	if err := authority.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := gateway.New(gateway.Options{Version: "test", Review: anybody{driver.Node}, Patience: gateway.Patience{Start: time.Nanosecond}})
	agent := &gateway.Agent{
		Version: "test",
		Find:    func(context.Context) ([]string, error) { return []string{l.Addr().String()}, nil },
		Token:   func() (string, error) { return "token", nil },
		Trust: func() (*x509.CertPool, error) {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(keys.published) {
				return nil, errors.New("no certificate")
			}
			return pool, nil
		},
		Pools: func() (all []gateway.Pool) {
			for _, p := range driver.Pools {
				all = append(all, gateway.Pool{Name: p.Name, Secret: p.Secret(), Open: p.IsOpen()})
			}
			return all
		},
		Services: driver.RegisterController, Intercept: driver.Intercept(nil),
	}
	endpoint := "unix://" + filepath.Join(dir, "gateway.sock")
	socket, err := csi.Listen(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(gateway.Intercept(nil)))
	g.Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(cancel)
	t.Cleanup(server.Stop)
	all.Go(func() { _ = server.Serve(socket) })
	all.Go(func() { _ = g.Serve(ctx, l, authority.TLS()) })
	all.Go(func() { agent.Run(ctx) })
	for end := time.Now().Add(10 * time.Second); len(g.Nodes()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the agent does not come: %v", agent.Connections())
		}
	}
	return endpoint
}
