package devmapper

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// WhileSuspended runs do with no I/O in flight on d. The device is resumed
// whether do succeeds, fails or panics: a volume left suspended hangs its pod.
// how may hold SkipLockFS and NoFlush, as for Suspend.
//
// do holds up everybody who writes to the device, so it does one thing, and it
// must not touch a file system: the one it waits for may be the suspended one.
// An inactive table is cleared first, since the resume would make it live.
//
// One WhileSuspended or Swap of a device at a time: to the kernel a second suspend
// is none, so the first one's resume would end both. The caller sees to that, with
// a lock of the device's own.
func (d Device) WhileSuspended(how Flags, do func() error) (err error) {
	live, err := d.liveTable()
	if err != nil {
		return err
	}
	if err := d.ClearInactive(); err != nil {
		return err
	}
	defer ioFlusher()()
	defer func() { err = errors.Join(err, d.resumeOr(live)) }() // also where Suspend says it failed
	if err := d.Suspend(how); err != nil {
		return err
	}
	return do()
}

// Swap makes table live in place of the one that is, with I/O held back in
// between. If the new table cannot be resumed, the old one is loaded and resumed
// again, and the error tells why. A device that refuses writes goes on doing so.
//
// Swapping in the table that is live already makes a pool look at the sizes of its
// devices again; those that it takes over show in its status, and a pool that
// needs a check takes none over and says nothing.
func (d Device) Swap(table Table, how Flags) error {
	live, err := d.liveTable()
	if err != nil {
		return err
	}
	if err := d.load(table.Lines(), live.readOnly); err != nil {
		return errors.Join(err, d.ClearInactive())
	}
	defer ioFlusher()()
	if err := d.Suspend(how); err != nil {
		return errors.Join(err, d.ClearInactive(), d.resumeOr(live))
	}
	return d.resumeOr(live)
}

// live is what a device was before it was changed: its table as the kernel prints
// it, which it also reads, so that a target that this package cannot parse comes
// back too, and whether it refuses writes, which is told with each table.
type live struct {
	table    []Line
	readOnly Flags
}

func (d Device) liveTable() (live, error) {
	reply, err := d.do(Request{Command: TableStatus, Flags: StatusTable | NoFlush})
	return live{reply.Lines, reply.Flags & ReadOnly}, err
}

// resumeOr resumes d, if need be with the table that was live before: a resume
// that failed leaves the failing table live, and only another one mends that. A
// device that runs in spite of the error is left alone; a pool that has grown,
// say, takes its old table no more.
func (d Device) resumeOr(before live) error {
	err := d.Resume()
	if err == nil || len(before.table) == 0 {
		return err
	}
	if info, infoErr := d.Info(); infoErr == nil && !info.Suspended() {
		return err
	}
	if loadErr := d.load(before.table, before.readOnly); loadErr != nil {
		return errors.Join(ErrLeftSuspended, err, loadErr)
	}
	if again := d.Resume(); again != nil {
		return errors.Join(ErrLeftSuspended, err, again)
	}
	return err
}

// ioFlusher keeps the calling goroutine on a thread of its own whose memory
// allocations start no I/O, until the function returned is called: a thread that
// waits for a write to the device it has suspended waits for ever. Without
// CAP_SYS_RESOURCE the thread is an ordinary one. Other threads of the process
// are: whoever suspends the device that holds this process's own files or swap
// must keep all of them from it.
func ioFlusher() (release func()) {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	return func() {
		if err == nil {
			_ = unix.Prctl(unix.PR_SET_IO_FLUSHER, 0, 0, 0, 0) // it was allowed a moment ago
		}
		runtime.UnlockOSThread()
	}
}
