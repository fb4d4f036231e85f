package deviceset

import (
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// AddDevice makes a device, as CreateDevice does. The options are those of
// docs/options.md: size, fs, mkfsarg, readonly, label.<key>.
func (s *DeviceSet) AddDevice(hash, baseHash string, storageOpt map[string]string) error {
	o, err := parseStorageOpt(storageOpt)
	if err != nil {
		return failed("add device", hash, err)
	}
	return s.CreateDevice(hash, baseHash, o)
}

// CreateDevice makes a device: a copy of the one that source names, as it is now,
// which shares its blocks and grows as one of the two is written; or without a
// source, a copy of the formatted base device of a file system, or with the file
// system "none", a blank one.
//
// A device that is there already and was made by the same call is no error. One
// that differs is ErrExists. A size below the source's is ErrTooSmall; the file
// system of a larger copy grows when it is mounted. What admission refuses is
// ErrPoolFull.
func (s *DeviceSet) CreateDevice(name, source string, o DeviceOptions) error {
	return s.during("add device", name, func() error { return s.createDevice(name, source, o) })
}

func (s *DeviceSet) createDevice(name, source string, o DeviceOptions) error {
	if err := errors.Join(CheckName(name), checkLabels(o.Labels), checkFS(o.FS)); err != nil {
		return err
	}
	if err := s.up(); err != nil {
		return err
	}
	if source != "" {
		if err := CheckName(source); err != nil {
			return err
		}
		if source == name {
			return fmt.Errorf("%w: it cannot be a copy of itself", ErrInvalid)
		}
		return s.copyOf(name, source, o)
	}
	if o.FS == "" {
		o.FS = s.config.FS
	}
	if o.FS == noFS || len(o.MkfsArgs) > 0 {
		return s.blank(name, o)
	}
	base, err := s.base(o.FS)
	if err != nil {
		return err
	}
	return s.copyOf(name, base, o)
}

// noFS is the file system of a device that has none.
const noFS = "none"

func checkFS(fs string) error {
	if fs == "" || fs == noFS {
		return nil
	}
	if _, err := filesystem.ParseType(fs); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// blank makes a device without content, and formats it if it was asked for with
// arguments of its own.
func (s *DeviceSet) blank(name string, o DeviceOptions) error {
	size := o.Size
	if size == 0 {
		size = s.config.BaseSize
	}
	size, err := s.wholeBlocks(size)
	if err != nil {
		return err
	}
	want := device{Name: name, Size: size, FS: noFS, ReadOnly: o.ReadOnly, Labels: maps.Clone(o.Labels)}
	unlock := s.locks.Lock(name)
	err = s.make(want, nil)
	unlock()
	if err == nil && o.FS != noFS {
		err = s.formatDevice(name, filesystem.Type(o.FS), o.MkfsArgs)
	}
	return err
}

// copyOf makes a snapshot. A source that is active is locked for as long as it is
// suspended, one that is not only against becoming active.
func (s *DeviceSet) copyOf(name, source string, o DeviceOptions) error {
	unlock := s.lockBoth(name, source, s.locks.Share)
	active, err := s.isActive(source)
	if err == nil && active {
		unlock()
		unlock = s.lockBoth(name, source, s.locks.Lock)
	}
	defer unlock()
	if errors.Is(err, ErrNotFound) && s.wasCopied(name, source, o) {
		return nil
	}
	if err != nil {
		return err
	}
	from, err := s.usable(source)
	if err != nil {
		return err
	}
	want, err := s.copied(name, from, o)
	if err != nil {
		return err
	}
	return s.make(want, &from)
}

// wasCopied reports whether the same call has made the device before its source was
// deleted.
func (s *DeviceSet) wasCopied(name, source string, o DeviceOptions) bool {
	have, err := s.lookup(name)
	if err != nil || have.Parent != source || have.ReadOnly != o.ReadOnly {
		return false
	}
	size, err := s.wholeBlocks(max(o.Size, 1))
	return o.Size == 0 || err == nil && have.Size == size
}

// lockBoth locks a name and its source, in the one order that all use.
func (s *DeviceSet) lockBoth(name, source string, how func(string) func()) func() {
	if name < source {
		first := s.locks.Lock(name)
		second := how(source)
		return func() { second(); first() }
	}
	first := how(source)
	second := s.locks.Lock(name)
	return func() { second(); first() }
}

func (s *DeviceSet) isActive(name string) (bool, error) {
	d, err := s.lookup(name)
	if err != nil {
		return false, err
	}
	_, err = s.pool.thin(d.ID).Info()
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	return err == nil, err
}

// copied says what a copy of a device is to be.
func (s *DeviceSet) copied(name string, from device, o DeviceOptions) (device, error) {
	size := from.Size
	if o.Size != 0 {
		var err error
		if size, err = s.wholeBlocks(o.Size); err != nil {
			return device{}, err
		}
	}
	switch {
	case size < from.Size:
		return device{}, fmt.Errorf("%w: %d bytes, its source %s has %d", ErrTooSmall, size, from.Name, from.Size)
	case o.FS != "" && o.FS != from.FS:
		return device{}, fmt.Errorf("%w: it cannot have file system %s, its source %s has %s", ErrInvalid, o.FS, from.Name, from.FS)
	case len(o.MkfsArgs) > 0:
		return device{}, fmt.Errorf("%w: mkfsarg: a copy is never formatted", ErrInvalid)
	case from.Formatting:
		return device{}, fmt.Errorf("%w: the formatting of its source %s did not end: format that again", ErrNotFormatted, from.Name)
	}
	return device{
		Name: name, Size: size, Parent: from.Name, FS: from.FS, ReadOnly: o.ReadOnly,
		Layer: from.Layer, Adopted: from.Adopted, Labels: maps.Clone(o.Labels),
	}, nil
}

// satisfies reports whether d is what a call that wants want would make. A device
// that was asked for without a file system may have been formatted since.
func (d *device) satisfies(want device) bool {
	return d.Parent == want.Parent && d.Size == want.Size && d.ReadOnly == want.ReadOnly &&
		(d.FS == want.FS || want.Parent == "")
}

// make makes a device, or finds it made. The caller holds its lock, and the
// source's.
func (s *DeviceSet) make(want device, from *device) error {
	if made, err := s.isMade(want); made || err != nil {
		return err
	}
	if err := s.mutable(); err != nil {
		return err
	}
	limit, err := s.admit(from != nil)
	if err != nil {
		return err
	}
	for range idAttempts {
		err := s.makeOnce(want, from, limit)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return fmt.Errorf("%w: somebody else makes thin devices in the pool", ErrUnavailable)
}

// idAttempts bounds how often an id is taken by somebody else between the question
// and the order.
const idAttempts = 8

// settleName settles a create of that name of which nobody knows whether it
// happened: whoever makes it anew, or wants it gone, must not be surprised by it
// later.
func (s *DeviceSet) settleName(name string) error {
	var open *operation
	s.store.view(func(c *catalog) {
		if o := c.making[name]; o != nil {
			copied := *o
			open = &copied
		}
	})
	if open == nil {
		return nil
	}
	if err := s.mutable(); err != nil {
		return err
	}
	return s.settle(*open)
}

// isMade reports whether the device is there.
func (s *DeviceSet) isMade(want device) (bool, error) {
	if err := s.settleName(want.Name); err != nil {
		return false, err
	}
	have, err := s.usable(want.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case !have.satisfies(want):
		return false, fmt.Errorf("%w: it has %d bytes, parent %q and file system %s", ErrExists, have.Size, have.Parent, have.FS)
	}
	return true, nil
}

// makeOnce makes the device under one id: EEXIST if the pool has that.
func (s *DeviceSet) makeOnce(want device, from *device, limit limit) error {
	id, err := s.freeID()
	if err != nil {
		return err
	}
	o := operation{Op: s.store.nextOp(), Device: want}
	o.Device.ID, o.Device.Created = id, s.machine.Now().Unix()
	s.store.view(func(c *catalog) { o.Device.Born = birth{Generation: c.Generation} })
	if from != nil {
		o.Origin = &from.ID
	}
	unlock := s.locks.Lock(o.lockName()) // against the worker
	defer unlock()
	if err := s.store.commitWithin(limit, record{Do: doCreate, Op: o.Op, Device: &o.Device, Origin: o.Origin}); err != nil {
		return err
	}
	err = s.send(o)
	switch {
	case err == nil:
		return s.store.later(record{Do: doEnd, Op: o.Op})
	case errors.Is(err, unix.EEXIST):
		// Not ours, though we asked: nothing of it may be taken for our own later.
		return errors.Join(err, s.store.commit(record{Do: doAbort, Op: o.Op}))
	}
	if err = s.afterError(o, err); err != nil {
		s.worker.wake() // to come back to what is open still
	}
	return err
}

// afterError settles a create that was answered with an error, which is passed on
// unless the device is there after all.
func (s *DeviceSet) afterError(o operation, cause error) error {
	if o.Origin != nil {
		if err := s.pool.settleDevice(s.pool.thin(*o.Origin)); err != nil { // an origin must not stay suspended
			cause = errors.Join(cause, err)
			return errors.Join(cause, s.settleLocked(o))
		}
	}
	if err := s.settleLocked(o); err != nil {
		return errors.Join(cause, err)
	}
	if _, err := s.lookup(o.Device.Name); err == nil {
		return nil
	}
	if errors.Is(cause, dm.ErrUnknownOutcome) {
		return fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	return cause
}

// send tells the pool to make a thin device. An origin that is active is suspended
// for that message.
func (s *DeviceSet) send(o operation) error {
	p := s.pool
	if o.Origin == nil {
		return p.changed(func() error { return p.CreateThin(o.Device.ID) })
	}
	sent := false
	snap := func() error {
		sent = true
		s.countSnapshot()
		return p.changed(func() error { return p.CreateSnap(o.Device.ID, *o.Origin) })
	}
	origin := p.thin(*o.Origin)
	err := origin.WhileSuspended(0, snap)
	if errors.Is(err, unix.ENXIO) && !sent {
		return snap() // it is not active
	}
	return err
}

// freeID returns an id that the pool does not have. One that it has, and nobody
// knows of, is an orphan.
func (s *DeviceSet) freeID() (dm.DeviceID, error) {
	for {
		id, err := s.nextID()
		if err != nil {
			return 0, err
		}
		there, err := s.pool.Has(id)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !there {
			return id, nil
		}
		s.mu.Lock()
		s.decided(RuleOrphan)
		s.found.orphans = append(s.found.orphans, id)
		s.mu.Unlock()
	}
}

// nextID hands out each id once in the life of a process, and not again before the
// others.
func (s *DeviceSet) nextID() (id dm.DeviceID, err error) {
	s.store.view(func(c *catalog) {
		s.mu.Lock()
		defer s.mu.Unlock()
		last := s.ids
		if last == 0 {
			last = c.Cursor - 1
		}
		if id, err = c.nextID(last); err == nil {
			s.ids = id
		}
	})
	return id, err
}
