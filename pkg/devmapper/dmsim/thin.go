package dmsim

import (
	"errors"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// thin is a thin device at work (drivers/md/dm-thin.c: struct thin_c).
type thin struct {
	pool   *pool
	device *device // whose table this is
	id     dm.DeviceID
}

func (k *Kernel) newThin(d *device, t *table, p dm.Thin) (target, error) {
	below, err := k.hold(t, p.Pool)
	if err != nil {
		return nil, err
	}
	pd, ok := below.(*device)
	switch {
	case !ok || pd.pool == nil || pd.pool.mode == modeFail || p.Origin != 0:
		return nil, unix.EINVAL
	case pd.pool.meta.thins[p.ID] == nil:
		return nil, unix.ENODATA
	case pd.pool.suspended:
		return nil, unix.EINVAL
	}
	pd.pool.open[p.ID]++
	return &thin{pd.pool, d, p.ID}, nil
}

func (t *thin) close() {
	if t.pool.open[t.id]--; t.pool.open[t.id] == 0 {
		delete(t.pool.open, t.id)
	}
}

func (t *thin) details() *thinDetails { return t.pool.meta.thins[t.id] }

func (t *thin) status() string {
	if t.pool.mode == modeFail || t.details() == nil {
		return dm.ThinStatus{State: dm.ThinFail}.String()
	}
	size := t.pool.meta.blockSize
	s := dm.ThinStatus{Mapped: dm.Sectors(len(t.details().mapped)) * size}
	for virtual := range t.details().mapped {
		s.Highest = max(s.Highest, dm.Sectors(virtual+1)*size-1)
	}
	return s.String()
}

// ready waits while the pool is suspended, and answers whether it does I/O.
func (t *thin) ready() error {
	for t.pool.suspended {
		t.pool.kernel.changed.Wait()
	}
	if t.pool.mode == modeFail || t.details() == nil {
		return unix.EIO
	}
	return nil
}

// eachBlock splits an I/O by the pool's blocks.
func (t *thin) eachBlock(at, length int64, do func(virtual uint64, offset, from, to int64) error) error {
	size := t.pool.meta.blockSize.Bytes()
	for from := int64(0); from < length; {
		offset := (at + from) % size
		to := min(from+size-offset, length)
		if err := do(uint64((at+from)/size), offset, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (t *thin) address(block uint64) int64 { return int64(block) * t.pool.meta.blockSize.Bytes() }

func (t *thin) read(at int64, b []byte) error {
	if err := t.ready(); err != nil {
		return err
	}
	return t.eachBlock(at, int64(len(b)), func(virtual uint64, offset, from, to int64) error {
		m, ok := t.details().mapped[virtual]
		if !ok {
			clear(b[from:to])
			return nil
		}
		return t.pool.dataStore.read(t.address(m.block)+offset, b[from:to])
	})
}

func (t *thin) write(at int64, b []byte) error {
	return t.eachBlock(at, int64(len(b)), func(virtual uint64, offset, from, to int64) error {
		if err := t.ready(); err != nil {
			return err
		}
		whole := to-from == t.pool.meta.blockSize.Bytes()
		block, err := t.blockFor(virtual, whole)
		if err != nil {
			return err
		}
		return t.pool.dataStore.write(t.address(block)+offset, b[from:to])
	})
}

// blockFor returns the block that a write to a virtual block goes to. A new one
// holds what was readable there before, unless the write covers it whole.
func (t *thin) blockFor(virtual uint64, whole bool) (uint64, error) {
	before, mapped := t.details().mapped[virtual]
	if mapped && !t.details().shared(before) {
		return before.block, nil
	}
	block, err := t.provision(virtual)
	if err != nil || whole || !mapped && t.pool.options.SkipBlockZeroing {
		return block, err
	}
	content := make([]byte, t.pool.meta.blockSize.Bytes())
	if mapped {
		if err := t.pool.dataStore.read(t.address(before.block), content); err != nil {
			return 0, err
		}
	}
	return block, t.pool.dataStore.write(t.address(block), content)
}

// provision gives a virtual block a data block of its own, and waits for one if
// the pool is full and queues (drivers/md/dm-thin.c: alloc_data_block,
// handle_unserviceable_bio).
func (t *thin) provision(virtual uint64) (uint64, error) {
	for p := t.pool; ; {
		if p.mode >= modeOutOfMetadata {
			return 0, unix.EIO
		}
		block, err := p.provision(t.id, virtual)
		if !errors.Is(err, unix.EAGAIN) {
			return block, err
		}
		if p.options.ErrorIfNoSpace {
			return 0, unix.ENOSPC
		}
		t.device.inFlight++
		p.kernel.changed.Wait()
		t.device.inFlight--
		if err := t.ready(); err != nil {
			return 0, err
		}
	}
}

// provision answers EAGAIN if the pool is full, even after a commit has set free
// what was deleted.
func (p *pool) provision(id dm.DeviceID, virtual uint64) (uint64, error) {
	free := p.meta.dataUsage().Free()
	if free <= p.options.LowWater && !p.lowWater {
		p.lowWater = true
		p.device.event()
	}
	block, err := p.meta.provision(id, virtual)
	if err != nil {
		p.commit()
		if p.mode >= modeOutOfMetadata {
			return 0, unix.EIO
		}
		if block, err = p.meta.provision(id, virtual); err != nil {
			p.setMode(modeOutOfData)
			return 0, err
		}
	}
	p.inService = true
	return block, nil
}

// discard gives back whole blocks; the rest keeps its content.
func (t *thin) discard(at, length int64) error {
	p := t.pool
	if p.options.IgnoreDiscard {
		return unix.EOPNOTSUPP
	}
	return t.eachBlock(at, length, func(virtual uint64, _, from, to int64) error {
		if err := t.ready(); err != nil {
			return err
		}
		if p.mode >= modeOutOfMetadata {
			return unix.EIO
		}
		if to-from < p.meta.blockSize.Bytes() {
			return nil
		}
		block, ok := p.meta.unmap(t.id, virtual)
		if !ok || p.options.NoDiscardPassdown || p.meta.refs[block] > 0 {
			return nil
		}
		p.inService = true
		return p.dataStore.discard(t.address(block), p.meta.blockSize.Bytes())
	})
}

// flush makes what was written durable, by a commit if its mapping is not yet.
func (t *thin) flush() error {
	if err := t.ready(); err != nil {
		return err
	}
	if len(t.pool.meta.undo) > 0 {
		t.pool.commit()
		if t.pool.mode >= modeOutOfMetadata {
			return unix.EIO
		}
	}
	return t.pool.dataStore.flush()
}
