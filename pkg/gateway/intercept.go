package gateway

import (
	"context"
	"path"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// Intercept returns what surrounds each call: it is counted, and one line says what
// became of it. Fields that this controller does not know go no further: whoever set them
// would have us promise what we do not know. One call that panics ends no other.
func Intercept(m *Metrics) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		begin, log := time.Now(), klog.FromContext(ctx).WithValues("method", path.Base(info.FullMethod))
		if about := subjectOf(r); about != "" {
			log = log.WithValues("about", about)
		}
		if m, ok := r.(proto.Message); ok {
			discardUnknown(m)
		}
		answer, err := recovered(klog.NewContext(ctx, log), r, handle)
		code, took := status.Code(err), time.Since(begin)
		if m != nil {
			m.operations.WithLabelValues(info.FullMethod, code.String()).Observe(took.Seconds())
		}
		switch {
		case code == codes.Internal || code == codes.Unknown:
			log.Error(err, "Answered", "code", code.String(), "took", took)
		case err != nil:
			log.Info("Answered", "code", code.String(), "took", took, "err", status.Convert(err).Message())
		default:
			log.V(4).Info("Answered", "took", took)
		}
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
}

// recovered makes an error of a panic.
func recovered(ctx context.Context, r any, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if why := recover(); why != nil {
			klog.FromContext(ctx).Error(nil, "A call has panicked", "why", why, "stack", string(debug.Stack()))
			answer, err = nil, status.Errorf(codes.Internal, "the controller has a defect, and its log has the place: %v", why)
		}
	}()
	return handle(ctx, r)
}

// subjectOf returns what a request is about. Nothing else of it is logged.
func subjectOf(r any) string {
	switch r := r.(type) {
	case interface{ GetVolumeId() string }:
		return r.GetVolumeId()
	case interface{ GetSnapshotId() string }:
		return r.GetSnapshotId()
	case interface{ GetName() string }:
		return r.GetName()
	}
	return ""
}
