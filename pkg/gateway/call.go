package gateway

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// answeredKey is in the trailer of what an agent has answered itself. What fails on the
// way has the same codes, and no trailer.
const answeredKey = "csi-dmthin-answered"

// An ownError is what an agent has answered itself.
type ownError struct{ *status.Status }

func (e ownError) Error() string { return e.Err().Error() }

// GRPCStatus is what the caller is told.
func (e ownError) GRPCStatus() *status.Status { return e.Status }

// isOwn reports whether an agent has answered an error itself.
func isOwn(err error) bool { return errors.As(err, new(ownError)) }

// call asks an agent.
func call[R proto.Message, A any](
	ctx context.Context, g *Gateway, a *agent, method string,
	ask func(context.Context, R, ...grpc.CallOption) (A, error), r R,
) (A, error) {
	defer a.calls.begin()()
	var trailer metadata.MD
	answer, err := ask(ctx, r, grpc.Trailer(&trailer))
	if err == nil {
		return answer, nil
	}
	code := status.Code(err) // an agent whose caller's time is over has answered nothing
	answered := len(trailer.Get(answeredKey)) > 0 && code != codes.DeadlineExceeded && code != codes.Canceled
	var none A
	return none, g.explain(ctx, a, method, err, answered)
}

// explain returns an agent's error, or what a failure on the way means to the sidecars.
func (g *Gateway) explain(ctx context.Context, a *agent, method string, err error, answered bool) error {
	s := status.Convert(err)
	switch {
	case s.Code() == codes.Unimplemented:
		return unavailable("node %s runs %s, which has no %s: this controller is %s", a.node, a.version, method, g.Version)
	case answered:
		return ownError{status.New(s.Code(), s.Message())}
	case ctx.Err() != nil || s.Code() == codes.DeadlineExceeded: // the one may be known before the other
		return patienceEnded(ctx, "node "+a.node+" goes on with "+method)
	case s.Code() == codes.ResourceExhausted: // which would send a claim to another node
		return status.Errorf(codes.Internal, "node %s: its answer to %s: %s", a.node, method, s.Message())
	}
	return unavailable("node %s: connection lost during %s, will be retried", a.node, method)
}

// ask is call for a question about a pool, to which an agent has an answer at once. One
// that has no good one may be of no use, and nobody waits for it for ever: whatever is
// wrong, the error is that of g.overdue.
func ask[R proto.Message, A any](
	ctx context.Context, g *Gateway, a *agent, method, pool string,
	ask func(context.Context, R, ...grpc.CallOption) (A, error), r R,
) (A, error) {
	asking, cancel := context.WithTimeout(ctx, g.Patience.Ask)
	defer cancel()
	answer, err := call(asking, g, a, method, ask, r)
	question := request{method, pool}
	switch code := status.Code(err); {
	case err == nil, isOwn(err) && (code == codes.NotFound || code == codes.Aborted):
		a.succeeded(question)
		return answer, err
	case ctx.Err() != nil:
		return answer, err
	case code == codes.DeadlineExceeded:
		return answer, g.overdue(a.failed(question), "the agent of node %s is connected, and answers no question about pool %s", a.node, pool)
	}
	s := status.Convert(err)
	return answer, g.overdue(a.failed(question), "node %s answers %s about pool %s with %v: %s", a.node, method, pool, s.Code(), s.Message())
}
