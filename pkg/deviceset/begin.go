package deviceset

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
)

// checkFences compares the copy under the root with the label's. Whoever has seen
// less than the other is older: a root directory or a disk that was put back to an
// earlier state.
//
//   - The label may lack the last frames: they are synced under the root first. But
//     it has those of all operations that ended, since the pool committed them, and
//     it got each new slot before the root did.
//   - It never has a frame that the root lacks.
func (s *DeviceSet) checkFences(root, copied *reading, err error) error {
	switch {
	case copied == nil:
		return fmt.Errorf("%w: the label: %w", ErrReadOnly, err)
	case copied.head.Store != root.head.Store:
		s.decided(RuleOtherStore)
		return fmt.Errorf("%w: the pool belongs to another root since it was adopted (store %s, machine %s)", ErrReadOnly, copied.head.Store, copied.head.Machine)
	case journal.IsDamage(err):
		s.decided(RuleLabelDamaged)
		return nil // the root's copy is whole, and begin writes the label's anew
	case copied.last > root.last:
		s.decided(RuleRootOlder)
		return fmt.Errorf("%w: the root directory is older than the pool: it ends with frame %d, the label with %d", ErrReadOnly, root.last, copied.last)
	case copied.head.Sequence < root.head.Peer:
		s.decided(RulePoolOlder)
		return fmt.Errorf("%w: the pool is older than the root directory: its label has slot %d, and had %d", ErrReadOnly, copied.head.Sequence, root.head.Peer)
	case copied.last < root.catalog.Fence:
		s.decided(RulePoolOlder)
		return fmt.Errorf("%w: the pool is older than the root directory: an operation ended after frame %d, and the label ends with %d", ErrReadOnly, root.catalog.Fence, copied.last)
	}
	return nil
}

// An unleased journal was read under the root, and is to be compared with the
// label's unless it was taken from there.
type unleased struct {
	*reading
	compare bool
}

// lease opens the label, which takes the pool for this process, and compares the two
// copies of the journal. A label that cannot be read now, such as on a pool that
// failed, may be later: what is mounted is served meanwhile.
func (s *DeviceSet) lease() error {
	if s.label != nil {
		return nil
	}
	found := s.unleased
	l, err := s.openLabel(found.catalog.Pool)
	if err != nil {
		return err
	}
	copied, _, err := skimSlots(l.slots)
	if err != nil && !journal.IsDamage(err) {
		return errors.Join(fmt.Errorf("%w: read label: %w", ErrUnavailable, err), l.close())
	}
	s.label = l
	if !found.compare {
		s.store.root.Continue(found.head.Sequence, found.last+1)
	} else if err := s.checkFences(found.reading, copied, err); err != nil {
		s.setReadOnly(err)
		return err
	}
	return nil
}

// begin opens the journal for writing: new slots, the generation, and then an end
// for creates that are open. It is ErrUnavailable while the pool takes no changes.
func (s *DeviceSet) begin() error {
	s.beginning.Lock()
	defer s.beginning.Unlock()
	s.mu.Lock()
	begun, err := s.begun, errors.Join(s.readOnly, s.down)
	s.mu.Unlock()
	if begun || err != nil {
		return err
	}
	if err := s.lease(); err != nil {
		return err
	}
	status, err := s.pool.Commit()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !status.Commits() {
		return fmt.Errorf("%w: %s", ErrNoChanges, ailment(status))
	}
	if err := s.raise(status.TransactionID); err != nil {
		return err
	}
	s.mu.Lock()
	s.begun = true
	s.mu.Unlock()
	s.settleCreates()
	s.worker.wake() // for the deletes, which may take long
	return nil
}

// raise gives the pool a new generation, which is its transaction id, before this
// process changes it for the first time. The journal has it first.
func (s *DeviceSet) raise(have uint64) error {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	defer st.takeTurn()()
	c := st.catalog
	switch {
	case st.poison != nil:
		return st.poison
	case have == c.Generation:
		if c.Raising {
			s.decided(RuleRaised)
		}
		c.Generation++
	case c.Raising && have+1 == c.Generation:
		s.decided(RuleRaiseAgain)
	default:
		s.decided(RuleOtherRaise)
		err := fmt.Errorf("%w: the pool has transaction id %d, want %d", ErrReadOnly, have, c.Generation)
		s.setReadOnly(err)
		return err
	}
	c.Raising = true
	st.label, st.gate = s.label.slots, s.pool.changed
	st.label.Continue(st.root.Header().Sequence, 0)
	if err := st.switchSlots(c); err != nil {
		return err
	}
	generation := c.Generation
	st.mu.Unlock()
	err := s.pool.changed(func() error { return s.pool.SetTransactionID(have, generation) })
	st.mu.Lock()
	if err != nil {
		return fmt.Errorf("%w: raise the generation: %w", ErrUnavailable, err)
	}
	c.Raising = false
	st.lazy = append(st.lazy, record{Do: doRaised})
	return nil
}

// settleCreates settles the creates that were open when the last process died. What
// cannot be settled now stays open, and the worker comes back to it.
func (s *DeviceSet) settleCreates() {
	for _, o := range s.openOperations() {
		if !o.Delete {
			_ = s.settle(o) // Status counts it
		}
	}
}

// openOperations returns what is open, in order.
func (s *DeviceSet) openOperations() (open []operation) {
	s.store.view(func(c *catalog) {
		for _, op := range slices.Sorted(maps.Keys(c.open)) {
			open = append(open, *c.open[op])
		}
	})
	return open
}
