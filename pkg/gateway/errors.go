package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// What sidecars do with a code is in docs/errors.md. They copy the texts into events,
// which are counted as one only if they do not vary.

func unavailable(format string, args ...any) error {
	return status.Errorf(codes.Unavailable, format, args...)
}

// exhausted is of a node without room: the only code that sends a claim to another.
func exhausted(format string, args ...any) error {
	return status.Errorf(codes.ResourceExhausted, format, args...)
}

// wrongAnswer is of an agent that answers what it was not asked.
func wrongAnswer(a *agent, method, what string) error {
	return status.Errorf(codes.Internal, "node %s: its answer to %s is not to be believed: %s", a.node, method, what)
}

// errAbsent is of a pool that no agent has that is connected.
func (f *fleet) errAbsent(key string) error {
	s, known := f.where(key)
	if !known {
		return unavailable("no node that is connected has the pool with key %s; if it is lost for good, say so in the ConfigMap csi-dmthin-lost", key)
	}
	if f.isHere(s.node) {
		return unavailable("node %s has pool %s (key %s) no more: it is not in its configuration, or its root was removed", s.node, s.pool, key)
	}
	return unavailable("node %s, which has pool %s (key %s), is not connected", s.node, s.pool, key)
}

// errTwice is of a pool that several nodes say they have.
func errTwice(key string, owners []*agent) error {
	var nodes []string
	for _, a := range owners {
		nodes = append(nodes, a.node)
	}
	return unavailable("nodes %s have the pool with key %s at once, so neither is used: disks were copied, or are attached to several machines",
		strings.Join(nodes, " and "), key)
}

func errLost(key string) error {
	return status.Errorf(codes.NotFound, "the pool with key %s was declared lost in the ConfigMap csi-dmthin-lost", key)
}

// idError gives a code to what parsing an id has found.
func idError(field string, err error) error {
	if errors.Is(err, plugin.ErrNoSuchID) {
		return status.Errorf(codes.NotFound, "%s: %v", field, err)
	}
	return err
}

func errMissing(field string) error {
	return status.Errorf(codes.InvalidArgument, "%s is missing", field)
}

// about returns an error whose text begins with what it is about.
func about(err error, format string, args ...any) error {
	s := status.Convert(err)
	return status.Errorf(s.Code(), "%s: %s", fmt.Sprintf(format, args...), s.Message())
}

// patienceEnded is the error of a caller that does not wait any longer.
func patienceEnded(ctx context.Context, what string) error {
	why := ctx.Err()
	if why == nil {
		why = context.DeadlineExceeded
	}
	return status.Error(status.FromContextError(why).Code(), fmt.Sprintf("%s: %v", what, why))
}

// definite reports whether an answer says what has become of what was asked for.
func definite(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Aborted, codes.DeadlineExceeded, codes.Canceled, codes.Unknown:
		return false
	}
	return true
}
