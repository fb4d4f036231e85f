package deviceset

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// ActivateDevice makes a block device of a device and returns the path of its node,
// such as /dev/dm-7. A device that is active already is no error. One that was made
// read-only refuses writes, and one whose formatting did not end is
// ErrNotFormatted.
func (s *DeviceSet) ActivateDevice(hash string) (path string, err error) {
	return s.activateNamed(hash, false)
}

// ActivateDeviceReadOnly is ActivateDevice for a block device that refuses writes. One
// that is active for writing is ErrExists.
func (s *DeviceSet) ActivateDeviceReadOnly(hash string) (path string, err error) {
	return s.activateNamed(hash, true)
}

func (s *DeviceSet) activateNamed(hash string, readOnly bool) (path string, err error) {
	err = s.during("activate device", hash, func() error {
		return s.alone(s.named(hash), func(d device) error {
			if d.Formatting {
				// The next attempt throws away all that is written meanwhile.
				return fmt.Errorf("%w: its formatting did not end: format it again", ErrNotFormatted)
			}
			info, err := s.pool.activate(d.ID, d.Size, d.ReadOnly || readOnly)
			if err == nil && readOnly && !info.ReadOnly() {
				err = fmt.Errorf("%w: it is active, for writing", ErrExists)
			}
			if err == nil {
				path, err = s.machine.Node(info)
			}
			return err
		})
	})
	return path, err
}

// ActiveDevice returns the block device of a device, and whether there is one.
func (s *DeviceSet) ActiveDevice(hash string) (i dm.Info, active bool, err error) {
	err = s.during("active device", hash, func() error {
		d, err := s.lookup(s.named(hash))
		if err != nil {
			return err
		}
		if err := s.up(); err != nil {
			return err
		}
		i, err = s.pool.thin(d.ID).Info()
		active = err == nil
		return ignoring(err, unix.ENXIO)
	})
	return i, active, err
}

// DeactivateDevice takes the block device of a device away; that there is none is
// no error. One that is open or mounted is ErrBusy, and stays.
func (s *DeviceSet) DeactivateDevice(hash string) error {
	return s.during("deactivate device", hash, func() error { return s.deactivateNamed(s.named(hash)) })
}

func (s *DeviceSet) deactivateNamed(name string) error {
	unlock := s.locks.Lock(name)
	defer unlock()
	if err := s.up(); err != nil {
		return err
	}
	d, err := s.lookup(name)
	if err != nil {
		return err
	}
	return s.deactivate(d)
}

// deactivate waits a little for who has the device open for an instant: a process that
// is just being started inherits all that is open, until it runs its program.
func (s *DeviceSet) deactivate(d device) error {
	err := ignoring(s.pool.thin(d.ID).Remove(), unix.ENXIO)
	for wait := firstBusyWait; isBusy(err) && wait <= s.lastBusyWait; wait *= 2 {
		time.Sleep(wait)
		err = ignoring(s.pool.thin(d.ID).Remove(), unix.ENXIO)
	}
	if isBusy(err) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

const (
	firstBusyWait = 5 * time.Millisecond
	lastBusyWait  = 160 * time.Millisecond // 315 ms in all
)

// activate makes a thin active, or finds it so: with another size it gets the one
// that the journal has. Whatever else is wrong with what is there is not mended: it
// is not ours.
func (p *pool) activate(id dm.DeviceID, size int64, readOnly bool) (dm.Info, error) {
	d := p.thin(id)
	info, err := d.Info()
	if err == nil && info.RemovalDeferred() {
		// Once more wanted. EBUSY and ENXIO mean that it is going or gone.
		if err = d.CancelDeferredRemove(); isBusy(err) {
			return dm.Info{}, fmt.Errorf("%w: it is being removed", ErrUnavailable)
		}
	}
	switch {
	case errors.Is(err, unix.ENXIO):
		return p.activateNew(id, size, readOnly)
	case err != nil:
		return dm.Info{}, err
	}
	if err := p.settleDevice(d); err != nil {
		return dm.Info{}, err
	}
	if err := p.fit(d, p.thinTable(id, size)); errors.Is(err, unix.ENXIO) {
		return p.activateNew(id, size, readOnly) // it had no table
	} else if err != nil {
		return dm.Info{}, err
	}
	return d.Info()
}

func (p *pool) activateNew(id dm.DeviceID, size int64, readOnly bool) (dm.Info, error) {
	how := dm.Activate
	if readOnly {
		how = dm.ActivateReadOnly
	}
	var d dm.Device
	err := p.running(func() (err error) {
		d, err = how(p.kernel, p.dmName(thinSuffix(id)), p.dmUUID(thinSuffix(id)), p.thinTable(id, size))
		return err
	})
	switch {
	case errors.Is(err, unix.ENODATA):
		return dm.Info{}, fmt.Errorf("%w: thin device %d: %w", ErrLost, id, err)
	case isBusy(err):
		return dm.Info{}, fmt.Errorf("%w: a device has its name or uuid: %w", ErrForeign, err)
	case err != nil:
		return dm.Info{}, err
	}
	return d.Info()
}

// fit gives an active thin the table that it should have, if it is the same thin.
// A shorter table is followed by a longer one, never the other way round.
func (p *pool) fit(d dm.Device, want dm.Table) error {
	live, err := d.Table()
	switch {
	case err != nil:
		return err
	case live.String() == want.String():
		return nil
	case len(live) == 1 && live[0].Target == want[0].Target && live.Length() < want.Length():
		p.decided(RuleGrown)
		return p.running(func() error { return d.Swap(want, 0) })
	}
	return fmt.Errorf("%w: device %s has table %q, want %q", ErrForeign, d, live, want)
}
