package deviceset

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// DeleteDevice takes a device away and frees the blocks that only it has; copies
// of it stay. Its name is free at once.
//
// A device that is open is not deleted at once: with syncDelete, or without
// deferred deletion, it is ErrBusy and stays as it is; else its deletion is
// pending, and a worker comes back to it until it is closed. Deleting is never
// refused for want of space.
func (s *DeviceSet) DeleteDevice(hash string, syncDelete bool) error {
	return s.during("delete device", hash, func() error { return s.deleteDevice(hash, syncDelete) })
}

func (s *DeviceSet) deleteDevice(name string, wait bool) error {
	if err := CheckName(name); err != nil {
		return err
	}
	unlock := s.locks.Lock(name)
	defer unlock()
	return s.deleteLocked(name, wait)
}

func (s *DeviceSet) deleteLocked(name string, wait bool) error {
	if err := s.up(); err != nil {
		return err
	}
	if err := s.settleName(name); err != nil {
		return err
	}
	d, err := s.deletable(name)
	if err != nil {
		return err
	}
	if err := s.mutable(); err != nil {
		return err
	}
	if wait || !s.config.DeferredDeletion {
		// Whoever has it open keeps it, so this comes before the note.
		if err := s.deactivate(d); err != nil {
			return err
		}
	}
	op := s.store.nextOp()
	if err := s.store.commit(record{Do: doDelete, Op: op, Name: name}); err != nil {
		return err
	}
	s.forgetFinding(name)
	err = s.destroyLocked(operation{Op: op, Delete: true, Device: d})
	if err != nil {
		s.worker.wake() // to come back to it
	}
	if isBusy(err) && !wait {
		return s.syncLabel() // no message has done it
	}
	return err
}

// deletable returns a device that may be deleted: not one whose thin device may be
// another's, but one that the pool has lost.
func (s *DeviceSet) deletable(name string) (device, error) {
	d, err := s.usable(name)
	if errors.Is(err, ErrLost) {
		return s.lookup(name)
	}
	return d, err
}

func (s *DeviceSet) destroyLocked(o operation) error {
	unlock := s.locks.Lock(o.lockName())
	defer unlock()
	if !s.isOpen(o.Op) {
		return nil // the worker was faster
	}
	return s.destroy(o)
}

// destroy carries out a delete that is written down, and nothing takes back: ErrBusy
// while the device is open. The caller holds the operation's lock.
func (s *DeviceSet) destroy(o operation) error {
	if err := s.removeThin(s.pool.thin(o.Device.ID)); err != nil {
		return err
	}
	if err := s.discard(o.Device); err != nil {
		return err
	}
	err := s.pool.changed(func() error { return s.pool.Delete(o.Device.ID) })
	switch {
	case err == nil:
		return s.store.later(record{Do: doEnd, Op: o.Op})
	case errors.Is(err, unix.ENODATA):
		return s.endUnheard(o) // somebody else did it
	case isBusy(err):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// removeThin deactivates a device that is about to go. One that is open goes when
// it is last closed.
func (s *DeviceSet) removeThin(d dm.Device) error {
	err := ignoring(d.Remove(), unix.ENXIO)
	if isBusy(err) {
		s.decided(RuleDeleteBusy)
		if s.config.DeferredRemoval {
			err = errors.Join(err, ignoring(d.RemoveDeferred(), unix.ENXIO))
		}
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// Deleting a device stands the whole pool still for up to half a microsecond a block
// that only it has, where they are scattered, and a tenth of that where they are not.
// A device with more than so many of them gives them back piece by piece first, which
// takes a hundred times as long and lets the neighbours in between.
const (
	manyBlocks = 1 << 19
	chunk      = gib
)

// discard gives back blocks before a delete: all of them where the data device
// shall get them back, too, such as a sparse file, else only where there are so
// many that the delete alone would stall the neighbours. It is a matter of comfort:
// where it does not work, the delete does.
func (s *DeviceSet) discard(d device) error {
	blocks := d.Size / s.pool.blockSize.Bytes()
	if !s.discards() && blocks <= manyBlocks {
		return nil
	}
	exclusive, err := s.exclusive(d.ID)
	if err != nil || len(exclusive) == 0 || !s.discards() && thinmeta.Sum(exclusive) <= manyBlocks {
		return nil
	}
	status, err := s.pool.status(0)
	if err != nil || status.Mode > dm.PoolOutOfDataSpace || status.NeedsCheck || status.Metadata.Free() < status.Metadata.Total/10 {
		return nil // a discard takes metadata before it gives some back
	}
	return s.discardRanges(d, exclusive)
}

// discards reports whether deleted blocks go back to what is below the pool.
func (s *DeviceSet) discards() bool {
	if s.config.Discard != nil {
		return *s.config.Discard
	}
	return s.config.kind() == poolLoop && !s.config.Preallocate
}

// discardRanges fails only if the device cannot be taken down again, or the set is being
// shut down.
func (s *DeviceSet) discardRanges(d device, ranges []thinmeta.Range) error {
	info, err := s.pool.activate(d.ID, d.Size, false)
	if err != nil {
		return nil
	}
	var stopped error
	if b, err := s.machine.OpenDevice(info, false); err == nil {
		for _, r := range ranges {
			if stopped = s.discardRange(b, r); stopped != nil {
				break
			}
		}
		_ = b.Close() // nothing was written
	}
	return errors.Join(stopped, s.removeThin(s.pool.thin(d.ID)))
}

// discardRange waits a little between chunks, so that the neighbours' turn comes. It is
// an error only if the set is being shut down.
func (s *DeviceSet) discardRange(b Block, r thinmeta.Range) error {
	block := s.pool.blockSize.Bytes()
	end := int64(r.End()) * block
	for at := int64(r.Begin) * block; at < end; at += chunk {
		if err := s.ended(); err != nil {
			return err
		}
		if b.Discard(at, min(chunk, end-at)) != nil {
			return nil
		}
		if at+chunk < end {
			time.Sleep(pauseBetweenChunks)
		}
	}
	return nil
}

const pauseBetweenChunks = time.Millisecond

// exclusive returns the blocks that only an inactive device has, as of now.
func (s *DeviceSet) exclusive(id dm.DeviceID) ([]thinmeta.Range, error) {
	if _, err := s.pool.Commit(); err != nil {
		return nil, err
	}
	m, err := s.machine.Metadata(s.pool.metaDev)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }() // it was only read
	return m.Exclusive(id)
}
