package deviceset

import (
	"context"
	"sync"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// A Usage is how much of the pool a device has, in bytes.
type Usage struct {
	Mapped         int64 // shared with others or not
	Exclusive      int64 // what its deletion frees, when it was last measured
	ExclusiveKnown bool  // it was measured since the process began
}

// measured is what MeasureExclusive has found.
type measured struct {
	mu        sync.Mutex
	exclusive map[dm.DeviceID]int64
}

// Usage returns how much of the pool each device has, as of the pool's last commit,
// which is a second ago at most. It reads the metadata once and costs the pool nothing.
func (s *DeviceSet) Usage() (usage map[string]Usage, err error) {
	err = s.during("usage of pool", s.root, func() (err error) {
		usage, err = s.readUsage()
		return err
	})
	return usage, err
}

func (s *DeviceSet) readUsage() (map[string]Usage, error) {
	if err := s.up(); err != nil {
		return nil, err
	}
	_, devices, err := s.readPool()
	if err != nil {
		return nil, err
	}
	mapped := make(map[dm.DeviceID]int64, len(devices))
	for _, d := range devices {
		mapped[d.ID] = d.Mapped.Sectors(s.pool.blockSize).Bytes()
	}
	s.measured.mu.Lock()
	exclusive := s.measured.exclusive // replaced, never changed
	s.measured.mu.Unlock()
	usage := map[string]Usage{}
	s.store.view(func(c *catalog) {
		for name, d := range c.devices {
			own, known := exclusive[d.ID]
			usage[name] = Usage{Mapped: mapped[d.ID], Exclusive: min(own, mapped[d.ID]), ExclusiveKnown: known}
		}
	})
	return usage, nil
}

// MeasureExclusive reads the whole metadata for what each device has alone, which Usage
// tells from then on. It takes as long as the metadata is large, and costs the pool
// nothing but reads. Of a device that is being written to, the figure before stays.
func (s *DeviceSet) MeasureExclusive(ctx context.Context) error {
	return s.during("measure pool", s.root, func() error { return s.measureExclusive(ctx) })
}

func (s *DeviceSet) measureExclusive(ctx context.Context) error {
	if err := s.up(); err != nil {
		return err
	}
	_, devices, err := s.readPool()
	if err != nil {
		return err
	}
	m, err := s.machine.Metadata(s.pool.metaDev)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // it was only read
	s.measured.mu.Lock()
	before := s.measured.exclusive
	s.measured.mu.Unlock()
	found := make(map[dm.DeviceID]int64, len(devices))
	for _, d := range devices {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.ended(); err != nil {
			return err
		}
		if ranges, err := m.Exclusive(d.ID); err == nil {
			found[d.ID] = thinmeta.Sum(ranges).Sectors(s.pool.blockSize).Bytes()
		} else if old, ok := before[d.ID]; ok {
			found[d.ID] = old
		}
	}
	s.measured.mu.Lock()
	defer s.measured.mu.Unlock()
	s.measured.exclusive = found
	return nil
}
