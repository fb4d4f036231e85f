package deviceset

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Shutdown ends the DeviceSet: it waits for the calls that are being carried out and
// for the worker, writes what waits to be written, and lets go of the pool, which is
// taken down if nobody uses it. What is mounted or active stays and goes on doing
// I/O, for the next NewDeviceSet to find. Shutting down again is no error.
//
// A call that hangs in the kernel is waited for half a minute. Then Shutdown is
// ErrBusy and keeps the pool and the root, which nobody else may have while that
// call can still change the pool; the process' end frees both, or another Shutdown.
// A delete that gives back a large device piece by piece stops there, and the next
// start goes on with it.
//
// home is the root, as for the devicemapper graph driver; nothing below it is
// unmounted.
func (s *DeviceSet) Shutdown(home string) error {
	s.mu.Lock()
	s.shut = true
	s.mu.Unlock()
	s.ending.Lock()
	defer s.ending.Unlock()
	return failed("shut down", home, s.end())
}

func (s *DeviceSet) end() error {
	if s.gone {
		return nil
	}
	if !s.quiesce(s.patience) {
		return fmt.Errorf("%w: a call hangs in the kernel", ErrBusy)
	}
	s.gone = true
	close(s.events)
	var err error
	if s.store != nil && s.store.writable() == nil {
		err = s.store.flush()
	}
	err = errors.Join(err, s.close())
	if m, ok := s.machine.(io.Closer); ok {
		err = errors.Join(err, m.Close())
	}
	return err
}

// quiesce waits until no verb and no worker is at anything, and reports whether it
// came to that.
func (s *DeviceSet) quiesce(atMost time.Duration) bool {
	quiet := make(chan struct{})
	go func() {
		s.worker.stop()
		s.calls.Wait()
		close(quiet)
	}()
	select {
	case <-quiet:
		return true
	case <-time.After(atMost):
		return false
	}
}
