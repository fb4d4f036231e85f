package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An Error reads as operation, device, cause, and keeps the kernel's errno for
// errors.Is.
type Error struct {
	Op     string // such as "load table" or "create_thin 7"
	Device string // the name or UUID that was asked for; empty where there is none
	Err    error
}

func (e *Error) Error() string {
	if e.Device == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Device, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors that are this package's own.
var (
	// ErrUnknownOutcome says that a pool was told to change and that nobody knows
	// whether it did: it answered, but the commit behind the answer cannot be
	// seen. It is settled by asking again, with Pool.Has, once the pool is
	// writable or after it was opened anew; until then neither success nor
	// failure may be reported.
	ErrUnknownOutcome = errors.New("outcome unknown: the pool may or may not have done it")

	// ErrLeftSuspended says that a device neither took its new table nor its old
	// one, and that its I/O waits: it needs a table that it takes, and a resume.
	ErrLeftSuspended = errors.New("device is left suspended")

	// ErrWrongNode says that a device node is not the device that it was taken
	// for: the kernel hands out /dev/dm-N again as soon as N is free.
	ErrWrongNode = errors.New("node belongs to another device")
)

// do asks k and puts operation and device before an error.
func do(k Kernel, r Request) (Reply, error) {
	reply, err := k.Do(r)
	if err != nil {
		return reply, &Error{Op: r.operation(), Device: r.device(), Err: err}
	}
	return reply, nil
}

// definite reports whether err is an answer after which the pool is certainly
// as it was before. Each of these is found out by a check that precedes the
// first change (drivers/md/dm-thin.c: pool_message; drivers/md/dm-ioctl.c).
func definite(err error) bool {
	for _, refusal := range []error{
		unix.EEXIST,     // the id is in use
		unix.ENODATA,    // no such id, or no such origin
		unix.EBUSY,      // the thin is active; a metadata snapshot is held
		unix.EINVAL,     // malformed, or another transaction id
		unix.EOPNOTSUPP, // the pool is read-only, failed or out of metadata
		unix.ENXIO,      // no such dm device
		unix.EACCES,     // no CAP_SYS_ADMIN
		unix.EPERM,
		os.ErrClosed, // the question was never sent
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
