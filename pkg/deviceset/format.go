package deviceset

import (
	"context"
	"errors"
	"fmt"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// FormatDevice makes a file system on a blank device. A device that has that file
// system is no error. Nothing else is ever formatted: not a copy, not a device that
// was adopted, not one that has been written to.
//
// Killed in the midst, the next call throws away what was written and begins anew.
func (s *DeviceSet) FormatDevice(hash string, fs filesystem.Type, mkfsArgs []string) error {
	return s.during("format device", hash, func() error { return s.formatDevice(s.named(hash), fs, mkfsArgs) })
}

func (s *DeviceSet) formatDevice(name string, fs filesystem.Type, args []string) error {
	return s.alone(name, func(d device) error { return s.formatOnce(d, fs, args) })
}

func (s *DeviceSet) formatOnce(d device, fs filesystem.Type, args []string) error {
	switch {
	case d.FS == string(fs) && !d.Formatting:
		return nil
	case d.FS != noFS:
		return fmt.Errorf("%w: it has file system %s", ErrExists, d.FS)
	case d.Parent != "" || d.Adopted:
		return fmt.Errorf("%w: a copy, or a device that was adopted, is never formatted", ErrInvalid)
	}
	if err := s.mutable(); err != nil {
		return err
	}
	return s.whileActive(d, func(i dm.Info) error { return s.formatActive(d, i, fs, args) })
}

// formatActive formats an active device, with a note before and after. The note after is
// durable before anybody can mount it.
func (s *DeviceSet) formatActive(d device, i dm.Info, fs filesystem.Type, args []string) error {
	if d.Formatting {
		s.decided(RuleFormatting)
		if err := s.empty(d, i); err != nil {
			return err
		}
	}
	if mapped, err := s.mapped(d.ID); err != nil {
		return err
	} else if mapped != 0 {
		return fmt.Errorf("%w: it holds %d bytes that nobody here has written", ErrForeign, mapped)
	}
	if err := s.store.commit(record{Do: doFormatting, Name: d.Name}); err != nil {
		return err
	}
	zeroes, err := s.pool.zeroes()
	if err != nil {
		return err
	}
	o := filesystem.MakeOptions{Args: args, Prezeroed: zeroes}
	if err := s.machine.Make(context.Background(), i, fs, o); err != nil {
		return err
	}
	found, err := s.machine.Probe(i)
	if err == nil && found.Type != fs {
		err = fmt.Errorf("found %s", found.Type)
	}
	if err != nil {
		return fmt.Errorf("%w: mkfs with %q made no %s: %w", ErrInvalid, args, fs, err)
	}
	return s.store.commit(record{Do: doFormatted, Name: d.Name, FS: string(fs)})
}

// zeroes reports whether the pool, as it runs, zeroes the rest of a new block.
func (p *pool) zeroes() (bool, error) {
	live, err := p.Table()
	t, ok := thinPoolOf(live)
	return ok && !t.SkipBlockZeroing, err
}

// empty throws away all that a device holds.
func (s *DeviceSet) empty(d device, i dm.Info) error {
	b, err := s.machine.OpenDevice(i, false)
	if err != nil {
		return err
	}
	for at := int64(0); at < d.Size && err == nil; at += chunk {
		err = b.Discard(at, min(chunk, d.Size-at))
	}
	return errors.Join(err, b.Close())
}

// mapped returns how many bytes of an active device have blocks.
func (s *DeviceSet) mapped(id dm.DeviceID) (int64, error) {
	status, err := s.pool.thin(id).ThinStatus()
	if err == nil && status.State != dm.ThinOK {
		err = fmt.Errorf("%w: thin device %d: %s", ErrUnavailable, id, status)
	}
	return status.Mapped.Bytes(), err
}

// whileActive runs do on an active device, which is as active afterwards as before.
func (s *DeviceSet) whileActive(d device, do func(dm.Info) error) error {
	active, err := s.isActive(d.Name)
	if err != nil {
		return err
	}
	info, err := s.pool.activate(d.ID, d.Size, d.ReadOnly)
	if err != nil {
		return err
	}
	err = do(info)
	if !active {
		err = errors.Join(err, s.deactivate(d))
	}
	return err
}

// base returns the name of the formatted base device of a file system, which is
// made when it is first wanted.
func (s *DeviceSet) base(fs string) (string, error) {
	name := baseName(fs)
	if d, err := s.usable(name); err == nil && d.FS == fs {
		return name, nil
	}
	t, err := filesystem.ParseType(fs)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	size, err := s.wholeBlocks(s.config.BaseSize)
	if err != nil {
		return "", err
	}
	err = s.makeBase(device{Name: name, Size: size, FS: noFS, Layer: true})
	if errors.Is(err, ErrExists) {
		err = nil // a base of another size stays as it is
	}
	if err == nil {
		err = s.formatDevice(name, t, s.config.MkfsArgs)
	}
	return name, failed("base device of", fs, err)
}

// makeBase makes a base device, also in place of one that the pool has lost: there is
// nothing in it that a new one would not have.
func (s *DeviceSet) makeBase(want device) error {
	unlock := s.locks.Lock(want.Name)
	defer unlock()
	if _, err := s.usable(want.Name); errors.Is(err, ErrLost) {
		if err := s.deleteLocked(want.Name, true); err != nil {
			return err
		}
	}
	return s.make(want, nil)
}

// fitBases makes bases that are smaller than the options ask for larger. Copies made
// from then on are larger; the file system of each grows when it is mounted.
func (s *DeviceSet) fitBases() error {
	if !s.config.BaseSizeGiven {
		return nil
	}
	var bases []device
	s.store.view(func(c *catalog) {
		for name, d := range c.devices {
			if isBase(name) {
				bases = append(bases, *d)
			}
		}
	})
	want, err := s.wholeBlocks(s.config.BaseSize)
	for _, d := range bases {
		switch {
		case err != nil:
		case want < d.Size:
			err = fmt.Errorf("%w: dm.basesize of %d bytes: the base device has %d, and never shrinks: %w", ErrTooSmall, want, d.Size, ErrInvalid)
		case want > d.Size:
			if e := s.growDevice(d.Name, want); e != nil { // a pool that is ill is served as it is
				s.warnings = append(s.warnings, fmt.Sprintf("dm.basesize: %s stays at %d bytes: %v", d.Name, d.Size, e))
			}
		}
	}
	return err
}
