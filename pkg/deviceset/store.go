package deviceset

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A store keeps a catalog in two places: under the root, which is synced for each
// commit, and on the label, which is not, because the commit of the operation that
// follows makes it durable before the operation's effect (drivers/md/dm-thin.c:
// commit flushes the data device first).
//
// Commits that come while one is being written go together into the next frame.
// One frame is in flight, so the first that is not whole is the last.
type store struct {
	mu      sync.Mutex
	catalog *catalog
	root    *journal.Slots
	label   *journal.Slots
	// gate lets I/O on the label through while the pool is not suspended. A process
	// that is killed with such a write waiting does not die before the pool is
	// resumed, and nobody else may resume it while it lives.
	gate    func(func() error) error
	head    journal.Header // whose slots these are
	queue   []*commit
	coming  []*commit     // those of the queue, behind those that are being written
	lazy    []record      // applied, and to be written with the next frame
	waiting chan struct{} // filled when lazy is
	writing bool
	idle    *sync.Cond // told when writing ends and nobody waits
	poison  error      // why nothing can be written any more
	op      uint64
}

// A commit waits for its record to be durable, if it has one.
type commit struct {
	record *record
	demand demand
	err    error
	turn   chan bool // true: write the next frame; false: done
}

// A limit refuses what would be promised beyond it: that many bytes more, to those that
// are. Nil is none.
type limit func(promised, more int64) error

func newStore(root *journal.Slots) *store {
	s := &store{root: root, waiting: make(chan struct{}, 1)}
	s.idle = sync.NewCond(&s.mu)
	return s
}

// view calls look with the catalog, which it must neither change nor keep.
func (s *store) view(look func(*catalog)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	look(s.catalog)
}

// nextOp returns the number of a new operation.
func (s *store) nextOp() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.op = max(s.op, s.catalog.Op) + 1
	return s.op
}

// later applies records now and writes them with the next frame: ends of
// operations, which a crash may forget, since the pool is asked.
func (s *store) later(records ...record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		if err := s.catalog.apply(r, 0); err != nil {
			return err
		}
		s.lazy = append(s.lazy, r)
	}
	select {
	case s.waiting <- struct{}{}:
	default:
	}
	return nil
}

// commit makes a record durable and applies it. After an error nothing was applied;
// what was written then shows at the next start.
func (s *store) commit(r record) error { return s.commitWithin(nil, r) }

// commitWithin is commit, unless limit or the journal's size refuses what the record
// would add.
func (s *store) commitWithin(limit limit, r record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.catalog.fits(r); err != nil {
		return err
	}
	has, more := demand{s.catalog.promised, s.catalog.size}, s.catalog.demandOf(r)
	for _, c := range s.coming {
		if c.record != nil && c.record.clashes(&r) {
			return fmt.Errorf("%w: %+v comes with %+v", errBadRecord, r, *c.record)
		}
		has = has.plus(c.demand)
	}
	if err := s.hasRoom(has.weight, more.weight); err != nil {
		return err
	}
	if limit != nil {
		if err := limit(has.promised, more.promised); err != nil {
			return err
		}
	}
	return s.write(&commit{record: &r, demand: more})
}

// hasRoom refuses what would let a checkpoint fill three quarters of a slot; what
// is left is for the records of deletes.
func (s *store) hasRoom(has, more int) error {
	if limit := s.root.Size() / 4 * 3; more > 0 && int64(has+more) > limit {
		return fmt.Errorf("%w: the journal has slots of %d bytes and its checkpoint must stay below %d: delete devices, or make a pool with a larger data device",
			ErrPoolFull, s.root.Size(), limit)
	}
	return nil
}

// write returns when c is written, by the caller, who holds mu, or with what another
// one writes.
func (s *store) write(c *commit) error {
	c.turn = make(chan bool, 1)
	s.queue, s.coming = append(s.queue, c), append(s.coming, c)
	if s.writing {
		s.mu.Unlock()
		mine := <-c.turn
		s.mu.Lock()
		if !mine {
			return c.err
		}
	}
	s.writing = true
	s.writeQueue()
	s.handOver()
	return c.err
}

// handOver ends the caller's turn to write, in favour of whoever waits.
func (s *store) handOver() {
	if s.writing = len(s.queue) > 0; s.writing { // in the name of whom it is handed to
		s.queue[0].turn <- true
		return
	}
	s.idle.Broadcast()
}

// takeTurn makes the caller, who holds mu, the one that writes.
func (s *store) takeTurn() (done func()) {
	for s.writing {
		s.idle.Wait()
	}
	s.writing = true
	return s.handOver
}

// writeQueue writes all that waits as one frame, the caller's commit among it. It
// is called with mu held, and lets go of it meanwhile.
func (s *store) writeQueue() {
	batch := s.queue
	s.queue = nil
	err := s.writeBatch(batch)
	s.coming = s.coming[len(batch):]
	for _, c := range batch {
		c.err = err
		c.turn <- false // there is room for one; the writer's own stays there
	}
}

func (s *store) writeBatch(batch []*commit) error {
	if s.poison != nil {
		return s.poison
	}
	if s.label == nil {
		return fmt.Errorf("%w: the journal is not open for writing", ErrUnavailable)
	}
	var records []record
	for _, c := range batch {
		if c.record != nil {
			records = append(records, *c.record)
		}
	}
	body, err := encodeRecords(slices.Concat(s.lazy, records))
	if err != nil {
		return err
	}
	if journal.FrameSize(len(body)) > s.root.Room() {
		if err := s.switchSlots(s.catalog); err != nil {
			return err
		}
		if body, err = encodeRecords(slices.Concat(s.lazy, records)); err != nil {
			return err
		}
	}
	number, riding := s.root.Next(), len(s.lazy)
	if len(body) == 0 {
		return nil
	}
	s.mu.Unlock()
	err = s.writeFrame(body)
	s.mu.Lock()
	if err != nil {
		return s.failed(err)
	}
	s.lazy = s.lazy[riding:]
	for _, r := range records {
		if err := s.catalog.apply(r, number); err != nil {
			return s.failed(err) // what was written cannot be replayed
		}
	}
	return nil
}

func (s *store) writeFrame(body []byte) error {
	if err := s.root.Append(body); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := s.root.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	if err := s.gate(func() error { return s.label.Append(body) }); err != nil {
		return fmt.Errorf("label: %w: %w", journal.ErrUnsure, err)
	}
	return nil
}

// switchSlots begins new slots with a checkpoint of c, in both places. What waits
// for the next frame and is in the checkpoint waits no more.
func (s *store) switchSlots(c *catalog) error {
	text, err := c.checkpoint()
	if err != nil {
		return err
	}
	head := s.head
	head.Pool, head.Generation = c.Pool.UUID, c.Generation
	next, riding, freed := s.root.Next(), len(s.lazy), c.freed
	c.freed = map[dm.DeviceID]struct{}{}
	s.mu.Unlock()
	err = s.writeSlots(head, text, next)
	s.mu.Lock()
	if err != nil {
		maps.Copy(c.freed, freed)
		return s.failed(err)
	}
	s.lazy = s.lazy[riding:]
	return nil
}

// writeSlots writes the label's copy first and notes under the root that it did: a
// label that has not got as far as that is an older one.
func (s *store) writeSlots(head journal.Header, text []byte, next uint64) error {
	if err := s.gate(func() error { return s.label.Switch(head, text, next) }); err != nil {
		return fmt.Errorf("switch label: %w: %w", journal.ErrUnsure, err)
	}
	head.Peer = s.label.Header().Sequence
	if err := s.root.Switch(head, text, next); err != nil {
		return fmt.Errorf("switch journal: %w", err)
	}
	return nil
}

// failed remembers an error after which this store writes nothing more. A sync
// that failed is not made good by one that succeeds: the kernel reports the error
// once and may have dropped the page, so only what is read anew from the medium is
// known. A file system that refuses a write, being full or read-only, has taken
// nothing, and a frame without room was not even written.
func (s *store) failed(err error) error {
	if !errors.Is(err, journal.ErrUnsure) && tookNothing(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.poison = fmt.Errorf("%w: the journal could not be written and must be opened anew: %w", ErrUnavailable, err)
	return s.poison
}

// tookNothing reports whether a write that failed has left the medium as it was.
func tookNothing(err error) bool {
	return slices.ContainsFunc([]error{unix.ENOSPC, unix.EROFS, unix.EDQUOT, journal.ErrFull}, func(e error) bool {
		return errors.Is(err, e)
	})
}

// flush writes what waits for a next frame.
func (s *store) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lazy) == 0 {
		return nil
	}
	return s.write(&commit{})
}

// writable returns why the store takes no more records, or nil.
func (s *store) writable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poison == nil && s.label == nil {
		return fmt.Errorf("%w: the journal is not open for writing", ErrUnavailable)
	}
	return s.poison
}
