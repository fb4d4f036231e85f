package csi

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime/debug"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Intercept returns what surrounds each call: it logs and counts it, keeps others from
// what it changes, gives its error a code, and answers for it if it panics. A call is
// carried to its end even if its caller has gone: what it has begun is true of the disk.
func (d *Driver) Intercept(observe func(method, code string, took time.Duration)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		begin, log := time.Now(), klog.FromContext(ctx).WithValues("method", path.Base(info.FullMethod))
		about := subjectOf(r)
		if about != "" {
			log = log.WithValues("about", about)
		}
		changes := about != "" && mutates(r)
		do := func(ctx context.Context) (any, error) {
			return recovered(log, func() (any, error) { return handle(klog.NewContext(ctx, log), r) })
		}
		answer, err := any(nil), error(nil)
		if changes {
			answer, err = d.running.join(ctx, about, info.FullMethod, r, func() (any, error) { return do(context.WithoutCancel(ctx)) })
		} else {
			answer, err = do(ctx)
		}
		code := codeOf(err)
		if observe != nil {
			observe(info.FullMethod, code.String(), time.Since(begin))
		}
		logAnswer(log, changes, code, err, time.Since(begin))
		if err != nil {
			return nil, status.Error(code, err.Error())
		}
		return answer, nil
	}
}

// recovered turns a panic into an error: other volumes' calls have nothing to do with it.
func recovered(log klog.Logger, do func() (any, error)) (answer any, err error) {
	defer func() {
		if what := recover(); what != nil {
			log.Error(fmt.Errorf("panic: %v", what), "A call panicked", "stack", string(debug.Stack()))
			answer, err = nil, errPanicked
		}
	}()
	return do()
}

var errPanicked = errors.New("the driver made a mistake: its log has the details")

// logAnswer logs one line for each call that changes something or is refused.
func logAnswer(log klog.Logger, mutates bool, code codes.Code, err error, took time.Duration) {
	switch {
	case code == codes.Internal || code == codes.Unknown:
		log.Error(err, "Answered", "code", code.String(), "took", took)
	case err != nil:
		log.Info("Answered", "code", code.String(), "took", took, "err", err)
	case mutates:
		log.Info("Answered", "took", took)
	default:
		log.V(4).Info("Answered", "took", took)
	}
}

// subjectOf returns the device that a request is about. Nothing else of a request is
// logged: it may carry secrets.
func subjectOf(r any) string {
	switch r := r.(type) {
	case *csi.CreateVolumeRequest:
		return plugin.Volume.DeviceName(r.GetName())
	case *csi.CreateSnapshotRequest:
		return plugin.Snapshot.DeviceName(r.GetName())
	case interface{ GetVolumeId() string }:
		return deviceOf(plugin.Volume, r.GetVolumeId())
	case interface{ GetSnapshotId() string }:
		return deviceOf(plugin.Snapshot, r.GetSnapshotId())
	}
	return ""
}

// deviceOf returns the device of an id, or the id as it came, if it is none.
func deviceOf(k plugin.Kind, text string) string {
	if i, err := plugin.ParseID(k, text); err == nil {
		return i.Device
	}
	return text[:min(len(text), 128)]
}

// mutates reports whether a call changes what it is about.
func mutates(r any) bool {
	switch r.(type) {
	case *csi.CreateVolumeRequest, *csi.DeleteVolumeRequest, *csi.CreateSnapshotRequest, *csi.DeleteSnapshotRequest,
		*csi.ControllerExpandVolumeRequest, *csi.NodeExpandVolumeRequest,
		*csi.NodeStageVolumeRequest, *csi.NodeUnstageVolumeRequest, *csi.NodePublishVolumeRequest, *csi.NodeUnpublishVolumeRequest:
		return true
	}
	return false
}
