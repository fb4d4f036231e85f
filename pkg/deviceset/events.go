package deviceset

import (
	"context"
	"fmt"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// An EventKind is what has happened to a pool.
type EventKind string

// The kinds.
const (
	EventLowData     EventKind = "low on data space"     // fewer blocks are free than the pool's low-water mark
	EventLowMetadata EventKind = "low on metadata space" // likewise, after what was held back was given
	EventMode        EventKind = "mode changed"          // such as from rw to out_of_data_space, and back
	EventGrown       EventKind = "metadata grown"        // what was held back was given to the pool
)

// An Event is news of the pool.
type Event struct {
	Kind   EventKind
	Status dm.PoolStatus // when it was noticed
	Err    error         // what was tried about it in vain
}

// String prints e in one line.
func (e Event) String() string {
	text := fmt.Sprintf("%s: %s", e.Kind, e.Status)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// eventsKept is how many events wait for somebody to receive them. Further ones
// are dropped: the status tells what is so.
const eventsKept = 64

// Events returns the channel of events, which is closed by Shutdown. It is fed by
// the kernel's own events, not by asking now and then.
func (s *DeviceSet) Events() <-chan Event { return s.events }

func (s *DeviceSet) emit(e Event) {
	select {
	case s.events <- e:
	default:
	}
}

// watch looks at the pool whenever the kernel has an event, of which it raises many
// for all of the machine's devices, and acts on what has changed.
func (s *DeviceSet) watch(ctx context.Context) {
	if s.up() != nil {
		return
	}
	w, err := s.machine.Watch()
	if err != nil {
		s.emit(Event{Kind: EventMode, Err: fmt.Errorf("watch the pool: %w", err)})
		return
	}
	defer func() { _ = w.Close() }() // it was only read
	var last dm.PoolStatus
	told := false // that metadata is short
	for first := true; ; first = false {
		if status, err := s.pool.status(0); err == nil {
			s.news(first, last, status)
			told = s.relieve(status, told)
			last = status
		}
		if err := waitFor(ctx, w, told); err != nil {
			return
		}
		time.Sleep(debounce)
	}
}

// waitFor waits for an event, or some time where there is something to try again.
func waitFor(ctx context.Context, w dm.Watch, again bool) error {
	if !again {
		return w.Wait(ctx)
	}
	some, cancel := context.WithTimeout(ctx, lastPause)
	defer cancel()
	err := w.Wait(some)
	if some.Err() != nil {
		return ctx.Err()
	}
	return err
}

// debounce is how long events of others are let pass as one.
const debounce = 10 * time.Millisecond

// news tells what is new in a status. At the first look a pool that is not rw is.
func (s *DeviceSet) news(first bool, last, now dm.PoolStatus) {
	if s.lowData(now) && (first || !s.lowData(last)) {
		s.emit(Event{Kind: EventLowData, Status: now})
	}
	if now.Mode != last.Mode || now.NeedsCheck != last.NeedsCheck {
		s.emit(Event{Kind: EventMode, Status: now})
		s.worker.wake()
	}
}

func (s *DeviceSet) lowData(status dm.PoolStatus) bool {
	return status.Known() && status.Data.Free() <= status.Data.Total/lowWaterPart
}

// lowMetadata is the kernel's own mark, or the end of metadata itself.
func lowMetadata(status dm.PoolStatus) bool {
	return status.Known() && (status.Metadata.Free() < status.MetadataLowWater || status.OutOfMetadata())
}

// relieve gives a pool that is short of metadata what is held back of it, so that
// deletes stay possible. What fails is tried again with the next event, or after a while. That there is
// nothing to give is told once: relieve returns whether it was.
func (s *DeviceSet) relieve(status dm.PoolStatus, told bool) bool {
	if !lowMetadata(status) {
		return false
	}
	gave, err := s.giveRest()
	switch {
	case gave && err == nil:
		if now, err := s.pool.status(0); err == nil {
			status = now
		}
		s.emit(Event{Kind: EventGrown, Status: status})
		s.worker.wake()
		return false
	case !told:
		s.emit(Event{Kind: EventLowMetadata, Status: status, Err: err})
	}
	return true
}
