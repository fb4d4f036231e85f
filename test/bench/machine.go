package main

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A machine is this one, counting what a DeviceSet asks of it.
type machine struct {
	*deviceset.Host
	probes, messages, statuses, others atomic.Int64 // requests to device-mapper
	label, journal                     traffic
	stood, still                       freezes // from the suspend's beginning, and from its end
}

// traffic counts what was asked of a Block.
type traffic struct{ writes, syncs atomic.Int64 }

func newMachine() (*machine, error) {
	host, err := deviceset.ThisMachine()
	return &machine{Host: host}, err
}

// Do counts r, and times how long a device is suspended.
func (m *machine) Do(r dm.Request) (dm.Reply, error) {
	m.counterOf(r).Add(1)
	suspends := r.Command == dm.DevSuspend && r.Flags&dm.Suspend != 0
	if suspends {
		m.stood.begin(r.UUID)
	}
	reply, err := m.Host.Do(r)
	switch {
	case suspends:
		m.still.begin(r.UUID)
	case r.Command == dm.DevSuspend:
		m.stood.end(r.UUID)
		m.still.end(r.UUID)
	}
	return reply, err
}

func (m *machine) counterOf(r dm.Request) *atomic.Int64 {
	switch {
	case r.Command == dm.TargetMsg && isProbe(r.Message):
		return &m.probes
	case r.Command == dm.TargetMsg:
		return &m.messages
	case r.Command == dm.TableStatus && r.Flags&dm.StatusTable == 0:
		return &m.statuses
	}
	return &m.others
}

// isProbe reports whether a message asks for a snapshot of itself: see Pool.Has.
func isProbe(message string) bool {
	words := strings.Fields(message)
	return len(words) == 3 && words[0] == "create_snap" && words[1] == words[2]
}

// OpenDevice counts what is written to the label, the one device that is opened
// exclusively.
func (m *machine) OpenDevice(i dm.Info, exclusive bool) (deviceset.Block, error) {
	b, err := m.Host.OpenDevice(i, exclusive)
	if err == nil && exclusive {
		b = &counted{b, &m.label}
	}
	return b, err
}

// OpenSlots counts what is written to the journal.
func (m *machine) OpenSlots(root string) ([2]deviceset.Block, error) {
	slots, err := m.Host.OpenSlots(root)
	for i, slot := range slots {
		if err == nil {
			slots[i] = &counted{slot, &m.journal}
		}
	}
	return slots, err
}

type counted struct {
	deviceset.Block
	*traffic
}

func (c *counted) WriteAt(b []byte, at int64) (int, error) {
	c.writes.Add(1)
	return c.Block.WriteAt(b, at)
}

func (c *counted) Sync() error {
	c.syncs.Add(1)
	return c.Block.Sync()
}

// freezes are how long devices stood still.
type freezes struct {
	mu    sync.Mutex
	since map[string]time.Time
	all   times
}

func (f *freezes) begin(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since == nil {
		f.since = map[string]time.Time{}
	}
	f.since[uuid] = time.Now()
}

// end ends what was begun; a device that is resumed for the first time never stood.
func (f *freezes) end(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if since, ok := f.since[uuid]; ok {
		f.all = append(f.all, time.Since(since))
		delete(f.since, uuid)
	}
}

// take returns what came together since the last take, sorted.
func (f *freezes) take() times {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all
	f.all = nil
	slices.Sort(all)
	return all
}
