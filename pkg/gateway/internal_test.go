package gateway

import (
	"net"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// Answer lets tests ask an agent as a newer controller does.
var Answer = (*Agent).answer

// NewSingle lets tests be an agent of their own making.
var NewSingle = newSingle

// A name is not tied for ever when nobody asks for it any more.
func TestOldTie(t *testing.T) {
	var all ties
	all.begin("one", "key")
	all.end("one", false)
	if _, tied := all.to("one"); !tied {
		t.Error("it is not tied")
	}
	all.byName["one"].last = time.Now().Add(-2 * tieAge)
	if _, tied := all.to("one"); tied {
		t.Error("it is tied still")
	}
}

// A connection is kept for longer than gRPC's own idle timeout, which is made short here:
// it could not be dialled again.
func TestConnectionsDoNotIdle(t *testing.T) {
	ours, theirs := net.Pipe()
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, csi.UnimplementedIdentityServer{})
	go func() { _ = server.Serve(newSingle(theirs)) }()
	defer server.Stop()
	conn, err := client(ours, grpc.WithIdleTimeout(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(t.Context(), state) {
			t.Fatal("it is not connected")
		}
	}
	time.Sleep(300 * time.Millisecond)
	if state := conn.GetState(); state != connectivity.Ready {
		t.Errorf("without calls it has become %v", state)
	}
}
