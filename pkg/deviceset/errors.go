package deviceset

import (
	"errors"
	"fmt"
)

// Errors by which a caller decides what to do; each is wrapped by one that says
// which device and why.
var (
	// ErrInvalid says that the caller asked for something that never works.
	ErrInvalid = errors.New("invalid argument")

	// ErrNotFound says that there is no device of that name. One whose deletion is
	// pending has no name any more.
	ErrNotFound = errors.New("no such device")

	// ErrExists says that the name is taken by a device that differs from the one
	// that was asked for.
	ErrExists = errors.New("the name is taken by another device")

	// ErrTooSmall says that a device was to become smaller, or smaller than what
	// it is a copy of.
	ErrTooSmall = errors.New("cannot be smaller")

	// ErrBusy says that the device is open or mounted: nothing was changed.
	ErrBusy = errors.New("the device is in use")

	// ErrPoolFull says that admission refused: nothing was changed. Deleting helps,
	// and so does growing the pool.
	ErrPoolFull = errors.New("the pool has no room")

	// ErrNoSpace says that the file system below a pool would keep too little free, or
	// allocates nothing ahead: nothing was changed.
	ErrNoSpace = errors.New("its file system has no room to allocate ahead")

	// ErrUnavailable says that it cannot be done now, or not be known whether it
	// was: ask again. What was begun keeps its name and id until it is settled.
	ErrUnavailable = errors.New("not available now")

	// ErrNoChanges says that the pool takes no changes now, being full of metadata, in
	// need of a check, or read-only: nothing was begun. It is ErrUnavailable too.
	ErrNoChanges = fmt.Errorf("%w: the pool takes no changes", ErrUnavailable)

	// ErrReadOnly says that state and pool disagree: devices that both have can be
	// used, and nothing is created or deleted until somebody adopts the pool.
	ErrReadOnly = errors.New("state and pool disagree: nothing is changed until the pool is adopted")

	// ErrQuarantined says that the thin device behind a name is not the one that
	// the name was given to.
	ErrQuarantined = errors.New("the device is quarantined")

	// ErrLost says that the journal has a device which the pool has not. Only
	// deleting it works.
	ErrLost = errors.New("the pool has lost the device")

	// ErrForeign says that a disk, a pool, a device or a mount is somebody else's.
	ErrForeign = errors.New("it belongs to somebody else")

	// ErrInUse says that another process or another root has the pool.
	ErrInUse = errors.New("another process has it")

	// ErrNoPool says that there is no pool, and that nobody asked to make one.
	ErrNoPool = errors.New("there is no pool")

	// ErrLostMetadata says that a pool's metadata begins with zeros, which the
	// kernel would take for an order to format it.
	ErrLostMetadata = errors.New("the pool's metadata is gone")

	// ErrNotFormatted says that a device has no file system to mount.
	ErrNotFormatted = errors.New("there is no file system")

	// ErrShutDown says that the DeviceSet has ended.
	ErrShutDown = errors.New("the device set is shut down")
)
