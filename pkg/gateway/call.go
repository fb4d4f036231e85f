package gateway

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// answeredKey is in the trailer of what an agent has answered itself. What fails on the
// way has the same codes, and no trailer.
const answeredKey = "csi-dmthin-answered"

// call asks an agent. Fields that this controller does not know go no further: whoever
// set them would have us promise what we do not know.
func call[R proto.Message, A any](
	ctx context.Context, g *Gateway, a *agent, method string,
	ask func(context.Context, R, ...grpc.CallOption) (A, error), r R,
) (A, error) {
	discardUnknown(r)
	var trailer metadata.MD
	answer, err := ask(ctx, r, grpc.Trailer(&trailer))
	if err == nil {
		return answer, nil
	}
	var none A
	return none, g.explain(ctx, a, method, err, len(trailer.Get(answeredKey)) > 0)
}

// explain returns an agent's error, or what a failure on the way means to the sidecars.
func (g *Gateway) explain(ctx context.Context, a *agent, method string, err error, answered bool) error {
	s := status.Convert(err)
	switch {
	case s.Code() == codes.Unimplemented:
		return unavailable("node %s runs %s, which has no %s: this controller is %s", a.node, a.version, method, g.Version)
	case answered:
		return status.Error(s.Code(), s.Message())
	case ctx.Err() != nil || s.Code() == codes.DeadlineExceeded: // the one may be known before the other
		return patienceEnded(ctx, "node "+a.node+" goes on with "+method)
	case s.Code() == codes.ResourceExhausted: // which would send a claim to another node
		return status.Errorf(codes.Internal, "node %s: its answer to %s: %s", a.node, method, s.Message())
	}
	return unavailable("node %s: connection lost during %s, will be retried", a.node, method)
}
