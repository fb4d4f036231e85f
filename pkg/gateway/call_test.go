package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

var errNotThere = status.Error(codes.NotFound, "it is not there")

// gate holds calls of a method at an agent until it is opened.
type gate struct {
	method  string
	entered chan struct{}
	open    chan struct{}
	calls   atomic.Int32
}

func newGate(method string) *gate {
	return &gate{method: method, entered: make(chan struct{}, 100), open: make(chan struct{})}
}

// within is an agent whose driver is held by the gate, inside of what makes calls join.
func (g *gate) within(a *gateway.Agent) {
	inner := a.Intercept
	a.Intercept = func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		return inner(ctx, r, info, func(ctx context.Context, r any) (any, error) {
			if strings.HasSuffix(info.FullMethod, "/"+g.method) {
				g.calls.Add(1)
				g.entered <- struct{}{}
				<-g.open
			}
			return handle(ctx, r)
		})
	}
}

// The controller ends in the middle of a call. The agent carries the call out, and the
// repeat, by way of another controller, joins it: one volume, and one call that made it.
func TestAgentFinishesWhatTheControllerLeft(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	held := newGate("CreateVolume")
	na := c.node("na", 8*gib, held.within)
	g.knows(t, "na")
	failed := make(chan error, 1)
	go func() { failed <- second(g.CreateVolume(context.Background(), request("one", gib, "na"))) }()
	<-held.entered
	g.stop()
	if <-failed == nil {
		t.Error("the call of a controller that has ended is answered")
	}

	other := c.controller()
	other.knows(t, "na")
	// Another volume is not held up; this one is neither there nor not.
	id := plugin.ID{Pool: na.key("default"), Device: "v-one"}.String()
	_, err := other.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: id})
	refuses(t, err, codes.Aborted, "pending")

	joined := make(chan error, 2)
	go func() { joined <- second(other.CreateVolume(context.Background(), request("one", gib, "na"))) }()
	go func() { joined <- second(other.CreateVolume(context.Background(), request("one", gib))) }() // it is found where it is made
	time.Sleep(100 * time.Millisecond)
	close(held.open)
	for range 2 {
		if err := <-joined; err != nil {
			t.Errorf("a repeat: %v", err)
		}
	}
	if n := held.calls.Load(); n != 1 {
		t.Errorf("the volume was made by %d calls", n)
	}
	if got := volumesOf(t, na); len(got) != 1 {
		t.Errorf("there are %v", got)
	}
}

// The caller's patience ends, the work does not.
func TestDeadline(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	held := newGate("CreateVolume")
	na, nb := c.node("na", 8*gib, held.within), c.node("nb", 16*gib)
	g.knows(t, "na", "nb")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := g.CreateVolume(ctx, request("one", gib, "na"))
	refuses(t, err, codes.DeadlineExceeded)
	// The name is tied to its node: nb has more room, and is not asked.
	_, err = g.CreateVolume(t.Context(), request("one", gib, "nb"))
	refuses(t, err, codes.Unavailable, "one", "na")
	close(held.open)
	if _, at := g.made(t, request("one", gib)); at != "na" {
		t.Errorf("it is on %s", at)
	}
	if len(volumesOf(t, na)) != 1 || len(volumesOf(t, nb)) != 0 {
		t.Error("the volume was made twice")
	}
	// Now there is an answer, and nothing is tied any more.
	if _, err := g.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: na.key("default") + ".v-one"}); err != nil {
		t.Fatal(err)
	}
	if _, at := g.made(t, request("one", gib, "nb")); at != "nb" {
		t.Errorf("it is on %s", at)
	}
}

// The agent is lost in the middle of a call: the text is always the same, since events
// with the same text are counted as one.
func TestAgentLostInMidCall(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	cut := &cutter{}
	held := newGate("CreateVolume")
	c.node("na", 8*gib, held.within, cut.between(t, g.address))
	defer close(held.open)
	g.knows(t, "na")
	failed := make(chan error, 1)
	go func() { failed <- second(g.CreateVolume(context.Background(), request("one", gib, "na"))) }()
	<-held.entered
	begin := time.Now()
	cut.cut()
	err := <-failed
	if want := "node na: connection lost during CreateVolume, will be retried"; status.Code(err) != codes.Unavailable || status.Convert(err).Message() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it was noticed after %v", took)
	}
}

// A cutter stands between agent and controller, and cuts the connections.
type cutter struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cutter) between(t *testing.T, address string) func(*gateway.Agent) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); c.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil {
				_ = in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in, out)
			c.mu.Unlock()
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
	return func(a *gateway.Agent) {
		a.Find = func(context.Context) ([]string, error) { return []string{l.Addr().String()}, nil }
	}
}

func pipe(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = to.Close()
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

// Connections that are cut again and again, while volumes are made and deleted: all that
// was answered is so, and nothing is there twice.
func TestCutsUnderLoad(t *testing.T) {
	c := newCluster(t)
	g := c.controller(func(o *gateway.Options) { o.Patience.Hold = 2 * time.Second })
	cuts := []*cutter{{}, {}}
	na, nb := c.node("na", 64*gib, cuts[0].between(t, g.address)), c.node("nb", 64*gib, cuts[1].between(t, g.address))
	g.knows(t, "na", "nb")
	cut := make(chan struct{})
	var all sync.WaitGroup
	var made, unanswered atomic.Int32
	for w := range 8 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-cut:
					return
				default:
				}
				r := request(fmt.Sprintf("v-%d-%d", w, i), 1<<20, []string{"na", "nb"}[w%2])
				if w >= 4 {
					r.AccessibilityRequirements = nil
				}
				var v *spec.Volume
				until(t, func() error {
					answer, err := g.CreateVolume(t.Context(), r)
					v = answer.GetVolume()
					switch status.Code(err) {
					case codes.OK:
					case codes.Unavailable:
						unanswered.Add(1)
					default:
						t.Error(err)
					}
					return err
				})
				if i%2 == 0 {
					until(t, func() error {
						return second(g.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}))
					})
					continue
				}
				made.Add(1)
			}
		})
	}
	for i := range 6 { // an agent waits longer from time to time
		g.knows(t, "na", "nb")
		time.Sleep(20 * time.Millisecond)
		cuts[i%2].cut()
	}
	g.knows(t, "na", "nb")
	close(cut)
	all.Wait()
	seen := map[string]int{}
	for _, name := range append(volumesOf(t, na), volumesOf(t, nb)...) {
		seen[name]++
	}
	for name, n := range seen {
		if n > 1 {
			t.Errorf("%s is there twice", name)
		}
	}
	if len(seen) != int(made.Load()) || made.Load() == 0 {
		t.Errorf("there are %d volumes, want %d", len(seen), made.Load())
	}
	t.Logf("%d volumes were made and kept; %d attempts were not answered", made.Load(), unanswered.Load())
}

// An answer that is too large must not look like want of room, which would send a claim
// to another node.
func TestOversizeAnswer(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib, serves(&large{}))
	g.knows(t, "na")
	_, err := g.ListVolumes(t.Context(), &spec.ListVolumesRequest{})
	refuses(t, err, codes.Internal, "na", "larger than max")
}

func serves(s spec.ControllerServer) func(*gateway.Agent) {
	return func(a *gateway.Agent) {
		a.Services = func(r grpc.ServiceRegistrar) { spec.RegisterControllerServer(r, s) }
	}
}

type large struct {
	spec.UnimplementedControllerServer
}

func (*large) ListVolumes(context.Context, *spec.ListVolumesRequest) (*spec.ListVolumesResponse, error) {
	return &spec.ListVolumesResponse{NextToken: strings.Repeat("x", 17<<20)}, nil
}

// An agent that is older lacks a call: that passes when it is upgraded, so it is not
// UNIMPLEMENTED, which would be for ever.
func TestOlderAgent(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na := c.node("na", 8*gib, serves(&noRoom{}), func(a *gateway.Agent) { a.Version = "1.2" })
	g.knows(t, "na")
	_, err := g.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: na.key("default") + ".v-x"})
	refuses(t, err, codes.Unavailable, "node na runs 1.2", "DeleteVolume", "1.3")
}

// A controller that is newer asks for what the agent does not know.
func TestNewerController(t *testing.T) {
	a := &gateway.Agent{Version: "1.2"}
	r := request("one", gib)
	field := protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1)
	r.GetVolumeCapabilities()[0].ProtoReflect().SetUnknown(field)
	ctx := grpc.NewContextWithServerTransportStream(t.Context(), stream{})
	err := second(gateway.Answer(a, ctx, r, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { return nil, nil }))
	refuses(t, err, codes.Unavailable, "1.2", "newer")
}

type stream struct{ grpc.ServerTransportStream }

func (stream) SetTrailer(metadata.MD) error { return nil }

// A sidecar that is newer than both sets what neither knows: as everywhere, that is passed
// over.
func TestNewerSidecar(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	c.node("na", 8*gib)
	g.knows(t, "na")
	r := request("one", gib, "na")
	field := protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1)
	r.ProtoReflect().SetUnknown(field)
	r.GetVolumeCapabilities()[0].ProtoReflect().SetUnknown(field)
	if _, at := g.made(t, r); at != "na" {
		t.Errorf("it is on %s", at)
	}
}

// What the agent says itself goes through as it is.
func TestAgentsOwnErrors(t *testing.T) {
	c := newCluster(t)
	g := c.controller()
	na := c.node("na", 8*gib)
	g.knows(t, "na")
	v, _ := g.made(t, request("one", gib, "na"))
	_, err := g.CreateVolume(t.Context(), request("one", 2*gib, "na"))
	refuses(t, err, codes.AlreadyExists)
	_, err = g.CreateVolume(t.Context(), request("much", 100*gib, "na"))
	refuses(t, err, codes.ResourceExhausted)
	_, err = g.ControllerExpandVolume(t.Context(), &spec.ControllerExpandVolumeRequest{
		VolumeId: v.GetVolumeId(), CapacityRange: &spec.CapacityRange{RequiredBytes: 100 * gib},
	})
	refuses(t, err, codes.OutOfRange)
	_, err = g.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: na.key("default") + ".v-none"})
	refuses(t, err, codes.NotFound)
	// Its deadline is what ended it, here: the agent is well.
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err = g.ControllerGetVolume(ctx, &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})
	refuses(t, err, codes.Canceled)
}
