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
//     it has those of all operations that ended, since the pool committed them.
//   - It never has a frame that the root lacks.
func checkFences(root, copied *reading, err error) error {
	switch {
	case copied == nil:
		return fmt.Errorf("%w: the label: %w", ErrReadOnly, err)
	case copied.head.Pool != root.head.Pool:
		return fmt.Errorf("%w: the label is of pool %s, the root of %s", ErrReadOnly, copied.head.Pool, root.head.Pool)
	case copied.head.Store != root.head.Store:
		return fmt.Errorf("%w: the pool belongs to another root since it was adopted (store %s, machine %s)", ErrReadOnly, copied.head.Store, copied.head.Machine)
	case journal.IsDamage(err):
		return nil // the root's copy is whole, and the next switch writes the label's anew
	case err != nil:
		return err
	case copied.last > root.last:
		return fmt.Errorf("%w: the root directory is older than the pool: it ends with frame %d, the label with %d", ErrReadOnly, root.last, copied.last)
	case copied.last < root.catalog.Fence:
		return fmt.Errorf("%w: the pool is older than the root directory: an operation ended after frame %d, and the label ends with %d", ErrReadOnly, root.catalog.Fence, copied.last)
	}
	return nil
}

// begin opens the journal for writing: new slots, the generation, and then an end
// for all that is open. It is ErrUnavailable while the pool takes no changes.
func (s *DeviceSet) begin() error {
	s.begin1.Lock()
	defer s.begin1.Unlock()
	s.mu.Lock()
	begun, err := s.begun, errors.Join(s.readOnly, s.down)
	s.mu.Unlock()
	if begun || err != nil {
		return err
	}
	status, err := s.pool.Commit()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !status.Commits() {
		return fmt.Errorf("%w: the pool takes no changes: %s", ErrUnavailable, ailment(status))
	}
	if err := s.raise(status.TransactionID); err != nil {
		return err
	}
	s.mu.Lock()
	s.begun = true
	s.mu.Unlock()
	s.settleAll()
	return nil
}

// raise gives the pool a new generation, which is its transaction id, before this
// process changes it for the first time. The journal has it first.
func (s *DeviceSet) raise(have uint64) error {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	c := st.catalog
	switch {
	case have == c.Generation:
		c.Generation++
	case c.Raising && have+1 == c.Generation:
	default:
		err := fmt.Errorf("%w: the pool has transaction id %d, want %d", ErrReadOnly, have, c.Generation)
		s.setReadOnly(err)
		return err
	}
	c.Raising = true
	st.label = s.label.slots
	st.label.Continue(st.root.Header().Sequence, 0)
	if err := st.switchSlots(c); err != nil {
		return err
	}
	generation := c.Generation
	st.mu.Unlock()
	err := s.pool.SetTransactionID(have, generation)
	st.mu.Lock()
	if err != nil {
		return fmt.Errorf("%w: raise the generation: %w", ErrUnavailable, err)
	}
	c.Raising = false
	st.lazy = append(st.lazy, record{Do: doRaised})
	return nil
}

// settleAll settles what was open when the last process died. What cannot be
// settled now stays open, and the worker comes back to it.
func (s *DeviceSet) settleAll() {
	var open []operation
	s.store.view(func(c *catalog) {
		for _, op := range slices.Sorted(maps.Keys(c.open)) {
			open = append(open, *c.open[op])
		}
	})
	for _, o := range open {
		_ = s.settle(o) // Status counts it
	}
}
