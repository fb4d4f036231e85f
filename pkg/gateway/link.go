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

// mostAnswerBytes is how large an answer may be: a page of 1 000 volumes has 300 KB.
const mostAnswerBytes = 16 << 20

var errGone = errors.New("the connection was lost")

// A link is a connection with an agent.
type link struct {
	conn  *grpc.ClientConn
	visit uint64 // the larger of two came later

	mu     sync.Mutex
	calls  int           // that wait for an answer
	idle   chan struct{} // closed when none does any more, for who waits for that
	silent time.Time     // since when no question is answered; zero if one was
}

// begin counts a call.
func (l *link) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
}

// end ends it.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls--; l.calls == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// drain waits for the calls that have begun: an agent that ends answers them.
func (l *link) drain(ctx context.Context) {
	l.mu.Lock()
	if l.calls == 0 {
		l.mu.Unlock()
		return
	}
	if l.idle == nil {
		l.idle = make(chan struct{})
	}
	idle := l.idle
	l.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// heard notes whether the agent has answered.
func (l *link) heard(answered bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case answered:
		l.silent = time.Time{}
	case l.silent.IsZero():
		l.silent = time.Now()
	}
}

// silence returns since when the agent answers no question, though it is connected.
func (l *link) silence() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent
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
