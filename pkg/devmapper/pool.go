package devmapper

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Pool is a device whose table is one thin-pool target. Its verbs are
// messages: none of them makes or needs an active thin device.
//
// A message is followed by a commit whose result the kernel drops
// (drivers/md/dm-thin.c: pool_message), so each verb that changes the pool asks
// for its status afterwards. A nil error means that the change is durable.
// [ErrUnknownOutcome] means that it may be or not. After any other error the
// pool is as it was:
//
//   - EEXIST, ENODATA: see the verb.
//   - EOPNOTSUPP: the pool is read-only, out of metadata space or failed.
//   - EINVAL: an id of more than 24 bits.
//
// The changes of one pool wait for each other in the kernel, and for no I/O but
// their own commit, which flushes the data device and twice the metadata device.
type Pool struct{ Device }

// CreateThin makes an empty thin device: EEXIST if id is in use.
func (p Pool) CreateThin(id DeviceID) error {
	return p.change(fmt.Sprintf("create_thin %d", id))
}

// CreateSnap makes id a snapshot of origin, sharing all its blocks: EEXIST if id
// is in use, ENODATA if there is no origin. An active origin must be suspended
// meanwhile, which the kernel does not check: what is in flight would be torn.
func (p Pool) CreateSnap(id, origin DeviceID) error {
	return p.change(fmt.Sprintf("create_snap %d %d", id, origin))
}

// Delete frees a thin device and the blocks that only it has: ENODATA if there
// is none, EBUSY if it is active. The pool stands still meanwhile, about a
// microsecond for each block of a device that shares none.
func (p Pool) Delete(id DeviceID) error {
	return p.change(fmt.Sprintf("delete %d", id))
}

// SetTransactionID replaces a transaction id that must be the current one:
// EINVAL if it is not.
func (p Pool) SetTransactionID(current, next uint64) error {
	return p.change(fmt.Sprintf("set_transaction_id %d %d", current, next))
}

// ReserveMetadataSnap holds the metadata as it is now, to be read from the
// device at the status' HeldRoot while the pool goes on: EBUSY if one is held
// already.
func (p Pool) ReserveMetadataSnap() error { return p.change("reserve_metadata_snap") }

// ReleaseMetadataSnap lets go of the held metadata: EINVAL if none is held.
func (p Pool) ReleaseMetadataSnap() error { return p.change("release_metadata_snap") }

// Has reports whether the pool has a thin device of that id, as of now and not
// as of the last commit. It changes nothing and flushes nothing, and works while
// others write: the kernel looks for the new id of a snapshot before it looks
// for the origin, so a device asked to become a snapshot of itself is either
// there (EEXIST) or has no origin (ENODATA)
// (drivers/md/dm-thin-metadata.c: __create_snap). A pool that takes no messages
// answers EOPNOTSUPP.
func (p Pool) Has(id DeviceID) (bool, error) {
	_, err := p.Message(0, fmt.Sprintf("create_snap %d %d", id, id))
	switch {
	case errors.Is(err, unix.EEXIST):
		return true, nil
	case errors.Is(err, unix.ENODATA):
		return false, nil
	case err == nil:
		err = errors.New("a snapshot of itself was made")
	}
	return false, p.failed(fmt.Sprintf("probe %d", id), err)
}

// PoolStatus returns the pool's status without a commit.
func (p Pool) PoolStatus() (PoolStatus, error) {
	return p.poolStatus(NoFlush)
}

// Commit makes durable what the pool has changed so far and returns its status
// after that. The commit's own success shows in the status alone: see
// PoolStatus.Commits. A suspended pool commits nothing, and does not say so:
// resume it first (drivers/md/dm-thin.c: pool_status).
func (p Pool) Commit() (PoolStatus, error) {
	return p.poolStatus(0) // without NoFlush the kernel commits first
}

func (p Pool) poolStatus(how Flags) (PoolStatus, error) {
	text, err := p.statusOf(ThinPool{}.TargetType(), how)
	if err != nil {
		return PoolStatus{}, err
	}
	return ParsePoolStatus(text)
}

// TransactionID returns the number that SetTransactionID sets. A failed pool has
// none, and says so: a zero would look like an answer.
func (p Pool) TransactionID() (uint64, error) {
	status, err := p.PoolStatus()
	if err == nil && !status.Known() {
		err = p.failed("transaction id", fmt.Errorf("pool is in mode %s", status.Mode))
	}
	return status.TransactionID, err
}

// change sends a message that changes the pool, and finds out whether the change
// was committed.
func (p Pool) change(message string) error {
	if _, err := p.Message(0, message); err != nil {
		if !definite(err) {
			err = fmt.Errorf("%w: %w", ErrUnknownOutcome, cause(err))
		}
		return p.failed(message, cause(err))
	}
	status, err := p.PoolStatus()
	if err == nil && !status.Commits() {
		err = fmt.Errorf("pool status is %q", status)
	}
	if err != nil {
		return p.failed(message, fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
	}
	return nil
}

func (p Pool) failed(op string, err error) error {
	return &Error{Op: op, Device: p.String(), Err: err}
}

// cause strips the operation from an error that gets another one.
func cause(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
