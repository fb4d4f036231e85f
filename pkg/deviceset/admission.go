package deviceset

import (
	"errors"
	"fmt"
	"math"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// statusAge is how old a status may be that admission decides by: what came from
// the last operation serves the next.
const statusAge = time.Second

// admit refuses a new device, before the pool hears of it, where it would leave too
// little. A copy takes no space at once, and any amount later. What it returns is the
// limit to what may be promised, which is kept when the device is written down, so
// that devices made at once cannot pass it together.
func (s *DeviceSet) admit(copied bool) (limit, error) {
	status, err := s.figures()
	if err != nil {
		return nil, err
	}
	if copied && status.Mode == dm.PoolOutOfDataSpace {
		return nil, fmt.Errorf("%w: no device is suspended while the pool is out of data space", ErrPoolFull)
	}
	data := s.room(status.Data)
	if err := s.admitSpace(status, data); err != nil {
		return nil, err
	}
	if !status.Commits() {
		return nil, fmt.Errorf("%w: %s", ErrNoChanges, ailment(status))
	}
	if copied {
		err = s.admitSnapshot()
	}
	return s.ratioOf(status, data), err
}

// figures returns a status by which admission can decide: a pool that failed has none.
func (s *DeviceSet) figures() (dm.PoolStatus, error) {
	status, err := s.pool.status(statusAge)
	if err == nil && !status.Known() {
		err = errors.New(ailment(status))
	}
	if err != nil {
		return status, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return status, nil
}

// room is a pool's data, of which no more is free than the file system of a file
// below the pool can still give.
func (s *DeviceSet) room(data dm.Usage) dm.Usage {
	if s.config.kind() != poolLoop {
		return data
	}
	bytes, err := s.fileRoom(data)
	if err != nil {
		return data // writes will tell
	}
	free := min(data.Free(), uint64(max(bytes, 0)/s.pool.blockSize.Bytes()))
	return dm.Usage{Used: data.Total - free, Total: data.Total}
}

// fileRoom returns how many bytes more a pool on files can hold: what it was given before
// and has no use for now, and what its file system has free.
func (s *DeviceSet) fileRoom(data dm.Usage) (int64, error) {
	space, err := s.machine.Space(s.loopData())
	if err != nil {
		return 0, err
	}
	allocated, err := s.machine.Allocated(s.loopData())
	return space.Free + max(allocated-int64(data.Used)*s.pool.blockSize.Bytes(), 0), err
}

// admitSpace keeps a part of the pool's data and metadata free for what is there.
func (s *DeviceSet) admitSpace(status dm.PoolStatus, data dm.Usage) error {
	for _, check := range []struct {
		what    string
		usage   dm.Usage
		percent int
		option  string
	}{
		{"data", data, s.config.MinFreeSpace, "dm.min_free_space"},
		{"metadata", status.Metadata, max(s.config.MinFreeSpace, s.config.MinFreeMetadata), "dm.min_free_metadata"},
	} {
		if check.percent == 0 {
			continue
		}
		least := max(1, check.usage.Total*uint64(check.percent)/100)
		if free := check.usage.Free(); free < least {
			return fmt.Errorf("%w: %d free %s blocks, fewer than the %d that %s=%d%% keeps: delete devices or grow the pool",
				ErrPoolFull, free, check.what, least, check.option, check.percent)
		}
	}
	return nil
}

// ratioOf returns the limit of what may be promised of a pool with that room.
func (s *DeviceSet) ratioOf(status dm.PoolStatus, data dm.Usage) limit {
	if s.config.OverProvision == 0 {
		return nil
	}
	total := s.dataOf(status, data)
	most := int64(min(total*s.config.OverProvision, math.MaxInt64/2))
	return func(promised, more int64) error {
		if more <= 0 || promised+more <= most {
			return nil
		}
		return fmt.Errorf("%w: %d bytes are promised and %d more would exceed dm.overprovision_ratio=%g of the pool's %.0f: delete devices, grow the pool, or raise the ratio",
			ErrPoolFull, promised, more, s.config.OverProvision, total)
	}
}

// dataOf returns how many bytes of data a pool can have: no more than the file system of
// a file below it can still give.
func (s *DeviceSet) dataOf(status dm.PoolStatus, data dm.Usage) float64 {
	blocks := min(status.Data.Total, status.Data.Used+data.Free())
	return float64(blocks) * float64(s.pool.blockSize.Bytes())
}

// DataFor returns how many bytes of data the pool must have for so many bytes more to be
// promised; none, if the ratio sets no limit.
func (s *DeviceSet) DataFor(more int64) int64 { return s.DataForOne(s.promised() + more) }

// promised returns how many bytes over-provisioning is about now.
func (s *DeviceSet) promised() (bytes int64) {
	s.store.view(func(c *catalog) { bytes = c.promised })
	return bytes
}

// DataForOne is DataFor, if nothing else were promised.
func (s *DeviceSet) DataForOne(size int64) int64 {
	if s.config.OverProvision == 0 {
		return 0
	}
	return roundUp(int64(math.Ceil(float64(size)/s.config.OverProvision)), s.pool.blockSize.Bytes())
}

// DataSize returns how many bytes of data the pool has, used or not.
func (s *DeviceSet) DataSize() (bytes int64, err error) {
	err = s.during("size of pool", s.root, func() error {
		if err := s.up(); err != nil {
			return err
		}
		status, err := s.figures()
		if err == nil {
			bytes = int64(status.Data.Total) * s.pool.blockSize.Bytes()
		}
		return err
	})
	return bytes, err
}

// Room returns how many bytes a new device may have: as many as the ratio and the free
// data allow, and none while nothing may be made.
func (s *DeviceSet) Room() (bytes int64, err error) {
	err = s.during("room of pool", s.root, func() (err error) {
		bytes, err = s.roomLeft()
		return err
	})
	return bytes, err
}

func (s *DeviceSet) roomLeft() (int64, error) {
	s.mu.Lock()
	err := errors.Join(s.readOnly, s.down)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	status, err := s.figures()
	if err != nil {
		return 0, err
	}
	data := s.room(status.Data)
	if !status.Commits() || s.admitSpace(status, data) != nil {
		return 0, nil
	}
	block := s.pool.blockSize.Bytes()
	free := float64(data.Free()) * float64(block)
	ratio := s.config.OverProvision
	if ratio == 0 {
		return int64(free) / block * block, nil
	}
	budget := s.dataOf(status, data)*ratio - float64(s.promised())
	return max(int64(min(budget, free*ratio, math.MaxInt64/2)), 0) / block * block, nil
}
