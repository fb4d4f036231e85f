package deviceset

import (
	"errors"
	"io"
)

// Shutdown ends the DeviceSet: it waits for the worker, writes what waits to be
// written, and lets go of the pool, which is taken down if nobody uses it. What is
// mounted or active stays and goes on doing I/O, for the next NewDeviceSet to find.
// Shutting down again is no error.
//
// home is the root, as for the devicemapper graph driver; nothing below it is
// unmounted.
func (s *DeviceSet) Shutdown(home string) error {
	s.mu.Lock()
	again := s.shut
	s.shut = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.worker.stop()
	close(s.events)
	var err error
	if s.store != nil && s.store.writable() == nil {
		err = s.store.flush()
	}
	err = errors.Join(err, s.close())
	if m, ok := s.machine.(io.Closer); ok {
		err = errors.Join(err, m.Close())
	}
	return failed("shut down", home, err)
}
