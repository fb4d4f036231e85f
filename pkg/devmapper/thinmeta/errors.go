package thinmeta

import (
	"errors"
	"fmt"
)

// Errors that are this package's own.
var (
	// ErrNoSuchDevice says that the pool has no thin device of that id.
	ErrNoSuchDevice = errors.New("no such thin device")

	// ErrChanged says that the pool changed, at each of several attempts, what was
	// being read. Asking again may help; metadata that the pool holds does not
	// change (see OpenHeld).
	ErrChanged = errors.New("metadata changed while it was read")

	// ErrNotHeld says that the pool holds no metadata snapshot.
	ErrNotHeld = errors.New("no metadata snapshot is held")

	// ErrBlank says that there is no superblock but zeros, which the kernel would
	// take for an order to format (drivers/md/dm-thin-metadata.c:
	// __superblock_all_zeroes).
	ErrBlank = errors.New("metadata begins with zeros: the kernel would format it")

	// ErrUnsupported says that the metadata has a version or a feature that this
	// package does not know.
	ErrUnsupported = errors.New("metadata of an unknown kind")
)

// A CorruptError says what is wrong with a block of the metadata.
type CorruptError struct {
	Block  uint64 // 4096 bytes each
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("metadata block %d is corrupt: %s", e.Block, e.Reason)
}

func corrupt(block uint64, format string, args ...any) error {
	return &CorruptError{Block: block, Reason: fmt.Sprintf(format, args...)}
}
