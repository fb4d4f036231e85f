package deviceset

import (
	"errors"
	"fmt"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// ResizePool makes the pool's data device size bytes large, and the metadata in
// proportion, while everything is in use. A file grows; a device must have been
// made larger before. The size that it has is no error, less is ErrTooSmall, and a
// pool that somebody else made is ErrForeign.
//
// Whatever fails, the pool runs on with its old or its new size. A pool that is out
// of metadata takes changes again.
func (s *DeviceSet) ResizePool(size int64) error {
	return s.during("resize pool", s.root, func() error { return s.resizePool(size) })
}

func (s *DeviceSet) resizePool(size int64) error {
	unlock := s.locks.Lock(poolLock)
	defer unlock()
	if err := s.up(); err != nil {
		return err
	}
	s.mu.Lock()
	fenced := s.readOnly
	s.mu.Unlock()
	if fenced != nil {
		return fenced
	}
	p := s.pool
	if p.existing {
		return fmt.Errorf("%w: whoever made pool %s grows it", ErrForeign, p)
	}
	have, err := p.data.Size()
	if err != nil {
		return err
	}
	before, err := p.poolSize()
	if err != nil {
		return err
	}
	if size/p.blockSize.Bytes() < int64(before) {
		return fmt.Errorf("%w: %d bytes, the pool has %d", ErrTooSmall, size, int64(before)*p.blockSize.Bytes())
	}
	if size > have {
		if err := s.growData(size); err != nil {
			return fmt.Errorf("data device %s has %d bytes: %w", p.data.Path(), have, err)
		}
	}
	if err := s.growMetadata(metadataSizeFor(size)); err != nil {
		return err
	}
	if err := s.reloadPool(size); err != nil {
		return err
	}
	s.worker.wake() // what the pool refused before it may take now
	return nil
}

// poolLock is the lock of the pool's size: no device has such a name.
const poolLock = "#pool"

// poolSize returns how many blocks the live table has.
func (p *pool) poolSize() (uint64, error) {
	live, err := p.Table()
	if err != nil {
		return 0, err
	}
	return uint64(live.Length() / p.blockSize), nil
}

// reloadPool gives the pool a table for size bytes of data, and sees to it that the
// kernel has taken it over: a pool that needs a check ignores it, and says nothing
// (drivers/md/dm-thin.c: maybe_resize_data_dev).
func (s *DeviceSet) reloadPool(size int64) error {
	p := s.pool
	table := p.table(size)
	p.change.Lock()
	err := p.Swap(table, quickly)
	p.change.Unlock()
	p.forget()
	if err != nil {
		return err
	}
	status, err := p.Commit()
	if err != nil {
		return err
	}
	if want := uint64(table.Length() / p.blockSize); status.Data.Total < want {
		return fmt.Errorf("%w: the pool still has %d data blocks, want %d: %s", ErrUnavailable, status.Data.Total, want, ailment(status))
	}
	return nil
}

// growMetadata makes the metadata's file larger, if it is one, and gives the pool
// what it may have of it while a part is still held back.
func (s *DeviceSet) growMetadata(want int64) error {
	p := s.pool
	have, err := p.metadata.Size()
	if err != nil {
		return err
	}
	if s.config.kind() == poolLoop && have < want {
		if err := p.metadata.Grow(want, Zeros); err != nil {
			return fmt.Errorf("metadata file %s: %w", p.metadata.Path(), err)
		}
		have = want
	}
	return s.give(givenOf(have))
}

// giveRest gives the pool what is held back of its metadata. It reports whether
// there was any.
func (s *DeviceSet) giveRest() (bool, error) {
	unlock := s.locks.Lock(poolLock)
	defer unlock()
	p := s.pool
	if p.existing {
		return false, nil
	}
	size, err := p.metadata.Size()
	if err != nil {
		return false, err
	}
	status, err := p.status(0)
	if err != nil {
		return false, err
	}
	if has := dm.Sectors(status.Metadata.Total) * dm.MetadataBlockSize; !lowMetadata(status) || allOf(size) <= has {
		return false, nil
	}
	if err := s.give(allOf(size)); err != nil {
		return true, err
	}
	data, err := p.poolSize()
	if err != nil {
		return true, err
	}
	return true, s.reloadPool(int64(data) * p.blockSize.Bytes())
}

func (s *DeviceSet) given() (given dm.Sectors) {
	s.store.view(func(c *catalog) { given = c.Pool.Given })
	return given
}

// give makes the device below the pool's metadata as long as that, or finds it so. The
// length is written down first: at the next start the pool needs all that it has ever
// seen.
func (s *DeviceSet) give(length dm.Sectors) error {
	if length > s.given() {
		if err := s.writeGiven(length); err != nil {
			return err
		}
	}
	p := s.pool
	p.change.Lock()
	defer p.change.Unlock()
	return p.activateLinear(s.given())
}

// writeGiven writes down how much of its metadata the pool has, even where the journal
// is closed to other changes, because a pool out of metadata takes no others.
func (s *DeviceSet) writeGiven(length dm.Sectors) error {
	if err := s.store.writable(); err != nil {
		if err := s.openJournal(); err != nil {
			return err
		}
	}
	return s.commitFact(nil, record{Do: doGive, Size: length.Bytes()})
}

// openJournal opens the journal for writing though the pool takes no changes.
func (s *DeviceSet) openJournal() error {
	s.beginning.Lock()
	defer s.beginning.Unlock()
	s.mu.Lock()
	err := errors.Join(s.readOnly, s.down)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.lease(); err != nil {
		return err
	}
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	defer st.takeTurn()()
	if st.poison != nil {
		return st.poison
	}
	if st.label != nil {
		return nil
	}
	st.label, st.gate = s.label.slots, s.pool.changed
	st.label.Continue(st.root.Header().Sequence, 0)
	return st.switchSlots(st.catalog)
}
