package devmapper

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Watcher is a Kernel that can also tell that something has happened.
type Watcher interface {
	Kernel
	// Watch begins to watch: Wait on what it returns answers at the first event
	// after this call. Close it when done.
	Watch() (Watch, error)
}

// A Watch tells when something has happened to any device of the machine: a pool
// is short of space or changed its mode, or a device came, went, was resumed or
// renamed. It is a hint to look at the status of one's own pools, no more: the
// kernel raises the same event for everybody's devices, and none for a pool that
// was already low when it was resumed (drivers/md/dm-ioctl.c: dm_poll;
// drivers/md/dm-thin.c: check_low_water_mark).
type Watch interface {
	// Wait returns when something has happened since Watch, or since Wait last
	// returned nil, so that a status read after it misses nothing. It returns the
	// context's error when that ends first. One Wait at a time.
	Wait(context.Context) error
	Close() error
}

// Watch opens the control node anew: the kernel keeps the place of a reader for
// each open file.
func (c *Control) Watch() (Watch, error) {
	fd, err := unix.Open(ControlNode, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ControlNode, Err: err}
	}
	// Non-blocking, so that Go waits for it together with its sockets, and no
	// thread is spent on it.
	w := &watch{Control{file: os.NewFile(uintptr(fd), ControlNode), room: map[Command]int{}}}
	if err := w.arm(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

type watch struct{ Control }

// arm makes the file readable at the next event after now.
func (w *watch) arm() error {
	_, err := do(w, Request{Command: DevArmPoll})
	return err
}

func (w *watch) Wait(ctx context.Context) error {
	if err := w.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = w.file.SetReadDeadline(time.Unix(1, 0)) // wakes readable; fails only on a closed file
		close(expired)
	})
	err := w.readable()
	if !stop() {
		<-expired // else the deadline might be set in the midst of the next Wait
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return w.arm()
}

// readable waits until the file is readable or its deadline passes.
func (w *watch) readable() error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		var n int
		for n, pollErr = unix.Poll(poll, 0); errors.Is(pollErr, unix.EINTR); {
			n, pollErr = unix.Poll(poll, 0)
		}
		return n > 0 || pollErr != nil
	})
	return errors.Join(err, pollErr)
}
