package deviceset

import (
	"context"
	"sync"
	"time"
)

// A worker goes on with what could not be finished when it was asked for: deletes of
// devices that were open, and operations of which the pool would not tell whether
// they happened. It comes back after a second, then after twice as long each time,
// and at once when the pool has news.
type worker struct {
	cancel context.CancelFunc
	nudge  chan struct{}
	done   sync.WaitGroup
}

const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// start begins the worker and the watch over the pool.
func (s *DeviceSet) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.worker = &worker{cancel: cancel, nudge: make(chan struct{}, 1)}
	s.worker.done.Go(func() { s.work(ctx) })
	s.worker.done.Go(func() { s.watch(ctx) })
	s.worker.done.Go(func() { s.writeEnds(ctx) })
}

// stop ends all of it and waits. A stop of what was not started is none.
func (w *worker) stop() {
	if w != nil {
		w.cancel()
		w.done.Wait()
	}
}

// wake makes the worker look now.
func (w *worker) wake() {
	if w == nil {
		return
	}
	select {
	case w.nudge <- struct{}{}:
	default: // it is about to
	}
}

func (s *DeviceSet) work(ctx context.Context) {
	pause := firstPause
	for {
		if s.finish(ctx) {
			pause = firstPause
		}
		wait := time.NewTimer(pause)
		if s.idle() {
			wait.Stop() // nothing to come back to before somebody nudges
		}
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-s.worker.nudge:
			wait.Stop()
			pause = firstPause
		case <-wait.C:
			pause = min(2*pause, lastPause)
		}
	}
}

// idle reports whether nothing is open.
func (s *DeviceSet) idle() (idle bool) {
	s.store.view(func(c *catalog) { idle = len(c.open) == 0 })
	return idle
}

// finish tries everything that is open once, and reports whether some of it ended.
func (s *DeviceSet) finish(ctx context.Context) (some bool) {
	if s.mutable() != nil {
		return false
	}
	for _, o := range s.openOperations() {
		if ctx.Err() != nil {
			return some
		}
		if unlock, ok := s.locks.Try(o.lockName()); ok { // else a caller is just at it
			some = s.settleLocked(o) == nil || some
			unlock()
		}
	}
	return some
}

// writeEnds writes the ends of operations that no later operation has taken along.
// A pool that is put back to before an operation is known by its end.
func (s *DeviceSet) writeEnds(ctx context.Context) {
	quiet := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			quiet.Stop()
			return
		case <-s.store.waiting:
			quiet.Reset(quietTime)
		case <-quiet.C:
			if s.store.writable() == nil {
				_ = s.store.flush() // an error closes the journal, and shows at the next call
			}
		}
	}
}

// quietTime is how long nothing happens before ends get a frame of their own.
const quietTime = time.Second
