package csi

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// Errors of requests; those of storage are package deviceset's.
var (
	errInvalid     = errors.New("invalid request")
	errOutOfRange  = errors.New("out of range")
	errNotHere     = errors.New("not on this node")
	errNotStaged   = errors.New("the volume is not staged there")
	errNotMounted  = errors.New("the volume is not there")
	errIncompat    = errors.New("the volume is another one")
	errWrongState  = errors.New("that is not possible now")
	errBadToken    = errors.New("the token is not one that was given out")
	errPending     = errors.New("an operation on it is pending")
	errUnsupported = errors.New("not supported")
	errNeverFits   = errors.New("it can never fit")
	errNoRoomNow   = errors.New("there is no room now")
)

// errorCodes are the codes of errors, the first that matches: what the orchestrator does
// about a code is in docs/errors.md.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{errInvalid, codes.InvalidArgument},
	{plugin.ErrNoSuchID, codes.NotFound},
	{errOutOfRange, codes.OutOfRange},
	{errNeverFits, codes.OutOfRange},
	{errNoRoomNow, codes.Internal},
	{errNotHere, codes.ResourceExhausted}, // the only code that sends a PVC to another node
	{errNotStaged, codes.FailedPrecondition},
	{errNotMounted, codes.NotFound},
	{errIncompat, codes.AlreadyExists},
	{errWrongState, codes.FailedPrecondition},
	{errBadToken, codes.Aborted},
	{errPending, codes.Aborted},
	{errUnsupported, codes.InvalidArgument},

	{deviceset.ErrInvalid, codes.InvalidArgument},
	{deviceset.ErrNotFound, codes.NotFound},
	{deviceset.ErrExists, codes.AlreadyExists},
	{deviceset.ErrTooSmall, codes.OutOfRange},
	{deviceset.ErrBusy, codes.FailedPrecondition},
	{deviceset.ErrPoolFull, codes.ResourceExhausted},
	{deviceset.ErrNotFormatted, codes.FailedPrecondition},
	{deviceset.ErrQuarantined, codes.FailedPrecondition},
	{deviceset.ErrLost, codes.FailedPrecondition},
	{deviceset.ErrForeign, codes.FailedPrecondition},
	{deviceset.ErrReadOnly, codes.Unavailable},
	{deviceset.ErrInUse, codes.Unavailable},
	{deviceset.ErrShutDown, codes.Unavailable},
	{deviceset.ErrUnavailable, codes.Unavailable},

	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// codeOf returns the code of an error: Internal, if nobody knows it.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	var coded interface{ GRPCStatus() *status.Status }
	if errors.As(err, &coded) {
		return coded.GRPCStatus().Code()
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	return codes.Internal
}
