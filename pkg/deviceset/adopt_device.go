package deviceset

import (
	"fmt"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// AdoptDevice gives a name to a thin device in quarantine, or to an orphan. Its size
// is at least what it maps. A device that nobody wants is deleted by that name.
func (s *DeviceSet) AdoptDevice(id dm.DeviceID, name string, size int64) error {
	return s.during("adopt device", name, func() error { return s.adoptDevice(id, name, size) })
}

func (s *DeviceSet) adoptDevice(id dm.DeviceID, name string, size int64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	unlock := s.locks.Lock(name)
	defer unlock()
	unlockID := s.locks.Lock(fmt.Sprint("#id-", uint32(id))) // one name for an id
	defer unlockID()
	if err := s.settleName(name); err != nil {
		return err
	}
	if err := s.mutable(); err != nil {
		return err
	}
	if _, err := s.lookup(name); err == nil {
		return ErrExists
	}
	if s.isNamed(id) { // also one that is being deleted: what is read below has it still
		return fmt.Errorf("%w: thin device %d has a name", ErrExists, id)
	}
	devices, err := s.detailsOf()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(devices, func(t thinDevice) bool { return t.ID == id })
	switch {
	case at < 0:
		return fmt.Errorf("%w: the pool has no thin device %d", ErrNotFound, id)
	case s.isNamed(id): // made meanwhile
		return fmt.Errorf("%w: thin device %d has a name", ErrExists, id)
	}
	t := devices[at]
	if size, err = s.wholeBlocks(max(size, t.extent.Sectors(s.pool.blockSize).Bytes(), 1)); err != nil {
		return err
	}
	created := t.Created
	d := device{
		Name: name, ID: id, Size: size, FS: noFS, Adopted: true, Created: s.machine.Now().Unix(),
		Born: birth{t.TransactionID, &created},
	}
	if err := s.commitFact(nil, record{Do: doAdopt, Op: s.store.nextOp(), Device: &d}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found.orphans = slices.DeleteFunc(slices.Clone(s.found.orphans), func(o dm.DeviceID) bool { return o == id })
	return nil
}

// isNamed reports whether a thin device is somebody's, or is being made or deleted.
func (s *DeviceSet) isNamed(id dm.DeviceID) (named bool) {
	s.store.view(func(c *catalog) { named = c.isTaken(id) && !c.isKept(id) })
	return named
}
