package deviceset

import (
	"context"
	"time"
)

// OpenQuiet is Open without the worker and the watch, and with a label of so many
// bytes, for tests that decide themselves what happens when.
func OpenQuiet(m Machine, root string, label int64, options ...string) (*DeviceSet, error) {
	s, err := prepare(m, root, options, nil, nil)
	if err != nil {
		return nil, err
	}
	s.config.label = label
	s.lastBusyWait = 0 // nobody opens a device for an instant
	if err := s.openOrClose(true); err != nil {
		return nil, err
	}
	return s, nil
}

// Finish does what the worker would do now.
func (s *DeviceSet) Finish() { s.finish(context.Background()) }

// WriteEnds does what happens after a quiet second.
func (s *DeviceSet) WriteEnds() error {
	if s.store.writable() != nil {
		return nil
	}
	return s.store.flush()
}

// Relieve does what the watch would do now about a pool that is short of metadata.
func (s *DeviceSet) Relieve() {
	if status, err := s.pool.status(0); err == nil {
		s.relieve(status, false)
	}
}

// SetPatience makes Shutdown wait that long.
func (s *DeviceSet) SetPatience(d time.Duration) { s.patience = d }
