package deviceset

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// NewDeviceSet opens the pool whose state is under root, on this machine, and makes
// one if there is none and doInit is set. The options are those of docs/options.md;
// the id maps say to whom the directories belong. Everything that was begun by a
// process that died is brought to its end or taken back first.
//
// Where the pool cannot be changed (its metadata is full, it needs a check, or the
// journal and the pool disagree) the DeviceSet works as far as it can, and its
// Status tells. It is an error if
//
//   - an option is not known or not valid (ErrInvalid);
//   - another process has the root, or another root the pool (ErrInUse);
//   - there is no pool and doInit is false (ErrNoPool);
//   - a disk or a pool is not ours, or carries something (ErrForeign);
//   - the pool's metadata begins with zeros (ErrLostMetadata).
func NewDeviceSet(root string, doInit bool, options []string, uidMaps, gidMaps []IDMap) (*DeviceSet, error) {
	m, err := ThisMachine()
	if err != nil {
		return nil, err
	}
	s, err := Open(m, root, doInit, options, uidMaps, gidMaps)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return s, nil
}

// Open is NewDeviceSet on any machine.
func Open(m Machine, root string, doInit bool, options []string, uidMaps, gidMaps []IDMap) (*DeviceSet, error) {
	s, err := prepare(m, root, options, uidMaps, gidMaps)
	if err != nil {
		return nil, err
	}
	if err := s.openOrClose(doInit); err != nil {
		return nil, err
	}
	s.start()
	return s, nil
}

func (s *DeviceSet) openOrClose(doInit bool) error {
	err := s.open(doInit)
	if err == nil {
		err = s.fitBases()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("device set %s: %w", s.root, err), s.close())
	}
	return nil
}

func prepare(m Machine, root string, options []string, uidMaps, gidMaps []IDMap) (*DeviceSet, error) {
	s := &DeviceSet{machine: m, root: root, events: make(chan Event, eventsKept), patience: patience, lastBusyWait: lastBusyWait}
	var err error
	if s.config, s.warnings, err = ParseOptions(options); err != nil {
		return nil, err
	}
	if s.owner.uid, err = RootOf(uidMaps); err != nil {
		return nil, err
	}
	if s.owner.gid, err = RootOf(gidMaps); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *DeviceSet) open(doInit bool) (err error) {
	if doInit {
		if err := s.machine.MakeRoot(s.root, s.owner.uid, s.owner.gid); err != nil {
			return err
		}
	}
	err = s.lockRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no such root", ErrNoPool)
	}
	if err != nil {
		return err
	}
	content, err := s.readRoot()
	switch {
	case errors.Is(err, fs.ErrNotExist) && !doInit:
		return fmt.Errorf("%w under this root", ErrNoPool)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, journal.ErrEmpty):
		return s.makePool()
	case journal.IsDamage(err) && content == nil:
		return fmt.Errorf("%w: %w: adopt the pool", ErrReadOnly, err)
	case err != nil && !journal.IsDamage(err):
		return err
	}
	if content.catalog != nil && !content.catalog.Pool.Made && !doInit {
		return fmt.Errorf("%w under this root: its making did not end", ErrNoPool)
	}
	return s.openPool(content, err)
}

// A reading is what one copy of the journal says.
type reading struct {
	head    journal.Header
	catalog *catalog
	last    uint64 // the last frame
	gap     bool
}

// readSlots reads a copy. A damaged one has the header alone, if that.
func readSlots(slots *journal.Slots) (*reading, error) {
	r, content, err := skimSlots(slots)
	if err != nil {
		return r, err
	}
	c, err := parseCheckpoint(content.Checkpoint)
	if err != nil {
		return &reading{head: r.head}, fmt.Errorf("%w: %w", journal.ErrDamaged, err)
	}
	for _, f := range content.Frames {
		if err := c.replay(f.Body, f.Number); err != nil {
			return &reading{head: r.head}, fmt.Errorf("%w: %w", journal.ErrDamaged, err)
		}
	}
	r.catalog = c
	return r, nil
}

// skimSlots reads how far a copy goes, and leaves its catalog unread.
func skimSlots(slots *journal.Slots) (*reading, *journal.Content, error) {
	content, err := slots.Read()
	if content == nil {
		return nil, nil, err
	}
	r := &reading{head: content.Header}
	if err == nil {
		r.last, r.gap = content.Last(), content.Gap
	}
	return r, content, err
}

// readRoot reads the two files. A gap in them is damage, since each frame was
// synced before the next was written.
func (s *DeviceSet) readRoot() (*reading, error) {
	slots, err := s.machine.OpenSlots(s.root)
	if err != nil {
		return nil, err
	}
	s.slots = slots
	size, err := slots[0].Size()
	if err != nil {
		return nil, err
	}
	root := journal.New([2]journal.File{slots[0], slots[1]}, size)
	s.store = newStore(root)
	r, err := readSlots(root)
	if err == nil && r.gap {
		err = fmt.Errorf("%w: frame %d is not whole, and later ones are there", journal.ErrDamaged, r.last+1)
	}
	return r, err
}

// openPool opens the pool of a journal that was found; damage tells why the copy
// under the root cannot be relied on.
func (s *DeviceSet) openPool(root *reading, damage error) error {
	found := root
	if damage != nil {
		copied, err := s.readLabelOf(root.head)
		if err != nil {
			return fmt.Errorf("%w: %w; and the label has no copy for it: %w: adopt the pool", ErrReadOnly, damage, err)
		}
		s.decided(RuleLabelsCopy)
		found = copied
	}
	if !found.catalog.Pool.Made {
		s.decided(RuleMakeAgain)
		return s.makePoolAgain(found)
	}
	s.store.catalog, s.store.head = found.catalog, s.header(found.head)
	s.newPool(found.catalog.Pool)
	if err := s.assemble(found.catalog.Pool); err != nil {
		if fatal(err) {
			return err
		}
		s.down = fmt.Errorf("%w: the pool cannot be opened: %w", ErrUnavailable, err)
		return nil
	}
	return s.takeOver(found, damage == nil)
}

// fatal reports whether an error means that the pool must not be touched, rather
// than that it does not work.
func fatal(err error) bool {
	for _, e := range []error{ErrForeign, ErrLostMetadata, ErrInUse, ErrInvalid} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// header returns the header of the next slots of this store.
func (s *DeviceSet) header(h journal.Header) journal.Header {
	return journal.Header{Pool: h.Pool, Store: h.Store, Machine: s.machine.ID()}
}

// takeOver takes the pool for this process, as far as it lets itself be taken.
func (s *DeviceSet) takeOver(found *reading, compare bool) error {
	if _, err := s.pool.Commit(); err != nil {
		s.down = fmt.Errorf("%w: %w", ErrUnavailable, err)
		return nil
	}
	s.unleased = &unleased{found, compare}
	if err := s.lease(); errors.Is(err, ErrInUse) {
		return err
	}
	s.look()
	if err := s.begin(); err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrReadOnly) {
		return err
	}
	return nil
}

func (s *DeviceSet) setReadOnly(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readOnly = err
}

// newPool says what the pool is, before it is there.
func (s *DeviceSet) newPool(r poolRecord) {
	errorIfNoSpace := s.config.ErrorIfNoSpace == nil || *s.config.ErrorIfNoSpace
	p := &pool{
		prefix: s.config.Prefix, uuid: r.UUID, existing: r.Kind == poolExisting, blockSize: r.BlockSize,
		decided: s.decided,
		features: dm.ThinPool{
			SkipBlockZeroing: s.config.SkipBlockZeroing, ErrorIfNoSpace: errorIfNoSpace,
			NoDiscardPassdown: s.config.Preallocate, // it would punch holes
		},
	}
	p.kernel = &observed{s.machine, p}
	name := p.dmName(poolSuffix)
	if p.existing {
		name = r.Data
	}
	p.Pool = dm.Pool{Device: dm.ByName(p.kernel, name)}
	p.linear = dm.ByName(p.kernel, p.dmName(metaSuffix))
	s.pool = p
}

// close lets go of what open took, in reverse order. Devices that are active stay.
func (s *DeviceSet) close() (err error) {
	if s.label != nil {
		err = errors.Join(err, s.label.close())
	}
	if s.pool != nil {
		err = errors.Join(err, ignoringBusy(s.pool.remove()), s.pool.closeDisks())
	}
	for _, slot := range s.slots {
		if slot != nil {
			err = errors.Join(err, slot.Close())
		}
	}
	if s.rootLock != nil {
		err = errors.Join(err, s.rootLock.Close())
	}
	return err
}
