package deviceset

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// settle brings an open operation to its end or takes it back, by asking the pool
// whether its thin device is there. That is proof: its id was absent before the
// operation was written down, and nobody else changes the pool. Errors and crashes
// end here alike.
//
//	create: there → it has happened        absent → it never will
//	delete: there → again                  absent → it has happened
//
// It is ErrUnavailable while the pool does not tell, and the operation stays open.
func (s *DeviceSet) settle(o operation) error {
	unlock := s.locks.Lock(o.lockName())
	defer unlock()
	return s.settleLocked(o)
}

func (s *DeviceSet) settleLocked(o operation) error {
	if !s.isOpen(o.Op) {
		return nil
	}
	if o.Delete {
		if err := s.removeThin(s.pool.thin(o.Device.ID)); err != nil {
			return err // and the pool need not be asked
		}
	}
	there, err := s.ask(o.Device.ID)
	switch {
	case err != nil:
		return fmt.Errorf("%w: operation %d: %w", ErrUnavailable, o.Op, err)
	case o.Delete && there:
		s.decided(RuleDeleteThere)
		return s.destroy(o)
	case o.Delete:
		s.decided(RuleDeleteAbsent)
		return s.endUnheard(o)
	case there:
		s.decided(RuleCreateThere)
		return s.endUnheard(o)
	}
	s.decided(RuleCreateAbsent)
	return s.store.commit(record{Do: doAbort, Op: o.Op})
}

func (o *operation) lockName() string { return fmt.Sprint("#", o.Op) }

func (s *DeviceSet) isOpen(op uint64) (open bool) {
	s.store.view(func(c *catalog) { open = c.open[op] != nil })
	return open
}

// ask tells whether a thin device is there, as of a commit.
func (s *DeviceSet) ask(id dm.DeviceID) (bool, error) {
	s.pool.change.RLock()
	defer s.pool.change.RUnlock()
	status, err := s.pool.Commit()
	if err != nil {
		return false, err
	}
	if !status.Commits() {
		return false, errors.New(ailment(status))
	}
	return s.pool.Has(id)
}

// endUnheard ends an operation whose message did not answer with success. Then it
// is not certain that the commit came after the label's frame, and the label is
// flushed to make it so.
func (s *DeviceSet) endUnheard(o operation) error {
	if err := s.syncLabel(); err != nil {
		return err
	}
	return s.store.later(record{Do: doEnd, Op: o.Op})
}

// ailment says what is wrong with a pool, and what helps.
func ailment(status dm.PoolStatus) string {
	switch {
	case status.NeedsCheck:
		return "a metadata operation failed and it needs a check: thin_check, then thin_repair into a copy (docs/repair.md)"
	case status.OutOfMetadata():
		return "its metadata is full: grow it"
	case status.Mode == dm.PoolReadOnly:
		return "it is read-only"
	case !status.Known():
		return fmt.Sprintf("it is in mode %s: its metadata cannot be read", status.Mode)
	case status.Mode == dm.PoolOutOfDataSpace:
		return "its data device is full: delete, discard or grow it"
	}
	return status.String()
}

// isBusy reports whether err says that somebody uses the thing.
func isBusy(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, ErrBusy) }

func ignoringBusy(err error) error { return ignoring(err, unix.EBUSY) }
