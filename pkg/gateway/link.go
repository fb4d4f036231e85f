package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// mostAnswerBytes is how large an answer may be: a page of 1 000 volumes has 300 KB.
	mostAnswerBytes = 16 << 20
	// mostHeaderBytes is how large headers and errors may be, of strangers, too.
	mostHeaderBytes = 64 << 10
)

var errGone = errors.New("the connection was lost")

// A link is a connection with an agent.
type link struct {
	conn  *grpc.ClientConn
	visit uint64   // the larger of two came later
	calls inFlight // that wait for an answer

	mu       sync.Mutex
	troubles map[request]trouble
}

// A request is what an agent is asked, and about which of its pools: one may hang while
// another is well.
type request struct{ method, pool string }

// A trouble is that a request has had no good answer.
type trouble struct{ since, last time.Time }

// troubleAge is how long one is remembered when nothing was asked any more.
const troubleAge = 10 * time.Minute

// succeeded notes a good answer.
func (l *link) succeeded(r request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.troubles, r)
}

// failed notes that there was none, and returns since when.
func (l *link) failed(r request) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	t, ok := l.troubles[r]
	if !ok || now.Sub(t.last) > troubleAge {
		t.since = now
	}
	if l.troubles == nil {
		l.troubles = map[request]trouble{}
	}
	l.troubles[r] = trouble{t.since, now}
	return t.since
}

// failing returns since when the requests of which that is asked have no good answer; zero
// if all have one.
func (l *link) failing(which func(request) bool) (since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r, t := range l.troubles {
		if which(r) && time.Since(t.last) <= troubleAge && (since.IsZero() || t.since.Before(since)) {
			since = t.since
		}
	}
	return since
}

// inFlight counts calls.
type inFlight struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when there is none any more, for who waits for that
}

// begin counts a call until it ends.
func (f *inFlight) begin() (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.n--; f.n == 0 && f.idle != nil {
			close(f.idle)
			f.idle = nil
		}
	}
}

// drain waits for the calls that have begun.
func (f *inFlight) drain(ctx context.Context) {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
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
				return nil, errGone
			}
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is below
		grpc.WithIdleTimeout(0),                                  // it could not be dialled again
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostAnswerBytes)),
		grpc.WithMaxHeaderListSize(mostHeaderBytes),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
	)...)
}

// closeWhenLost ends ctx as soon as the connection is not ready any more.
func closeWhenLost(ctx context.Context, conn *grpc.ClientConn, cancel context.CancelCauseFunc) {
	conn.Connect()
	for state := conn.GetState(); ; state = conn.GetState() {
		switch state {
		case connectivity.TransientFailure, connectivity.Shutdown:
			cancel(errGone)
			return
		case connectivity.Ready:
			conn.WaitForStateChange(ctx, state)
			cancel(errGone)
			return
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}
