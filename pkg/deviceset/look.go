package deviceset

import (
	"fmt"
	"maps"
	"slices"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// A timeCount counts a pool's snapshots: its superblock.Time, of which mappings
// have room for 24 bits. What the kernel does beyond is corrupt data.
type timeCount struct {
	known bool
	value uint32
}

// lastTime is where snapshots end. It leaves room for those in flight.
const lastTime = 1<<24 - 1<<16

// look compares the pool's thin devices with the journal's. It changes nothing in
// the pool; what does not match is kept from being used, and told.
func (s *DeviceSet) look() {
	super, devices, err := s.readPool()
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.found.err = fmt.Errorf("read the pool's metadata: %w", err)
		return
	}
	f, births := s.compare(devices)
	if len(births) > 0 {
		_ = s.store.later(births...) // each was just found to fit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = f
	s.time = timeCount{known: true, value: super.Time}
}

func (s *DeviceSet) readPool() (super thinmeta.Superblock, devices []thinmeta.Device, err error) {
	m, err := s.machine.Metadata(s.pool.metaDev)
	if err != nil {
		return super, nil, err
	}
	defer func() { _ = m.Close() }() // it was only read
	if super, err = m.Superblock(); err != nil {
		return super, nil, err
	}
	devices, err = m.Devices()
	return super, devices, err
}

// compare finds what is in the journal or in the pool alone, what was born another
// time than the journal says, and births that the journal has not in full.
func (s *DeviceSet) compare(devices []thinmeta.Device) (f findings, births []record) {
	f = findings{looked: true, bad: map[string]error{}}
	there := make(map[uint32]thinmeta.Device, len(devices))
	s.store.view(func(c *catalog) {
		for _, d := range devices {
			there[uint32(d.ID)] = d
			if !c.isTaken(d.ID) && d.ID != labelID {
				f.orphans = append(f.orphans, d.ID)
			}
		}
		for name, d := range c.devices {
			t, ok := there[uint32(d.ID)]
			switch {
			case !ok:
				f.ghosts = append(f.ghosts, name)
				f.bad[name] = fmt.Errorf("%w: %s (thin device %d)", ErrLost, name, d.ID)
			case !d.Born.matches(t.TransactionID, t.Created):
				f.bad[name] = fmt.Errorf("%w: thin device %d was made in generation %d at time %d, and %s was not", ErrQuarantined, d.ID, t.TransactionID, t.Created, name)
			case d.Born.Time == nil:
				s.decided(RuleBorn)
				created := t.Created
				births = append(births, record{Do: doBorn, Name: name, Time: &created})
			}
		}
	})
	return f, births
}

// forgetFinding forgets what was found of a device that has no name any more: the next
// one of that name is another.
func (s *DeviceSet) forgetFinding(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found.bad[name] == nil {
		return
	}
	s.found.bad = maps.Clone(s.found.bad)
	delete(s.found.bad, name)
	s.found.ghosts = slices.DeleteFunc(slices.Clone(s.found.ghosts), func(ghost string) bool { return ghost == name })
}

// countSnapshot counts a snapshot that the pool may make now.
func (s *DeviceSet) countSnapshot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time.value++
}

// admitSnapshot refuses a snapshot where the pool can count no more.
func (s *DeviceSet) admitSnapshot() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.time.known:
		return fmt.Errorf("%w: how many snapshots the pool has had could not be read: %w", ErrUnavailable, s.found.err)
	case s.time.value >= lastTime:
		return fmt.Errorf("%w: it has had %d snapshots, and beyond 2^24 the kernel mixes up blocks: move to a new pool, or rebase this one offline (docs/repair.md)", ErrPoolFull, s.time.value)
	}
	return nil
}
