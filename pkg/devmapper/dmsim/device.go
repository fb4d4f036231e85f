package dmsim

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A device is a dm device (drivers/md/dm-ioctl.c: struct hash_cell, and
// drivers/md/dm.c: struct mapped_device).
type device struct {
	claim
	kernel     *Kernel
	dev        dm.DevNo
	name, uuid string
	eventNr    uint32
	opens      int // open files and tables of other devices
	inFlight   int // writes that wait for space
	suspended  bool
	deferred   bool // to be removed when last closed
	removed    bool
	readOnly   bool
	live       *table
	inactive   *table
	inactiveRO bool
	pool       *pool // if a table of it is a thin-pool
}

func (k *Kernel) find(r dm.Request) *device {
	at := slices.IndexFunc(k.devices, func(d *device) bool {
		return d != nil && (r.Name != "" && d.name == r.Name || r.Name == "" && r.UUID != "" && d.uuid == r.UUID)
	})
	if at < 0 || r.Name != "" && r.UUID != "" {
		return nil
	}
	return k.devices[at]
}

func (k *Kernel) create(r dm.Request) (dm.Reply, error) {
	if r.Name == "" || strings.Contains(r.Name, "/") {
		return dm.Reply{}, unix.EINVAL
	}
	for _, d := range k.devices {
		if d != nil && (d.name == r.Name || r.UUID != "" && d.uuid == r.UUID) {
			return dm.Reply{}, unix.EBUSY
		}
	}
	minor := slices.Index(k.devices, nil)
	if minor < 0 {
		minor = len(k.devices)
		k.devices = append(k.devices, nil)
	}
	d := &device{kernel: k, dev: dm.MakeDevNo(Major, uint32(minor)), name: r.Name, uuid: r.UUID}
	k.devices[minor] = d
	k.events++
	return d.describe(dm.Reply{}), nil
}

// describe adds to a reply what every reply tells of its device.
func (d *device) describe(reply dm.Reply) dm.Reply {
	reply.Dev, reply.Name, reply.UUID = d.dev, d.name, d.uuid
	reply.OpenCount, reply.EventNr = d.opens, d.eventNr
	for flag, set := range map[dm.Flags]bool{
		dm.Suspend: d.suspended, dm.ActivePresent: d.live != nil, dm.InactivePresent: d.inactive != nil,
		dm.DeferredRemove: d.deferred, dm.ReadOnly: d.readOnly,
	} {
		if set {
			reply.Flags |= flag
		}
	}
	return reply
}

// remove takes d away, or notes that the last close shall.
func (k *Kernel) remove(d *device, deferred bool) error {
	if d.opens > 0 {
		d.deferred = d.deferred || deferred
		if deferred {
			return nil
		}
		return unix.EBUSY
	}
	k.devices[d.dev.Minor()] = nil
	d.removed = true
	d.setInactive(nil)
	if d.live != nil {
		d.live.close()
		d.live = nil
	}
	d.event()
	return nil
}

func (d *device) open() { d.opens++ }

// close is one open less.
func (d *device) close() {
	if d.opens--; d.opens == 0 && d.deferred {
		_ = d.kernel.remove(d, false) // nobody has it open
	}
}

func (k *Kernel) rename(d *device, name string) error {
	if name == "" || strings.Contains(name, "/") {
		return unix.EINVAL
	}
	if k.find(dm.Request{Name: name}) != nil {
		return unix.EBUSY
	}
	d.name = name
	k.events++
	return nil
}

// load makes the table of r the inactive one. Opening what it needs comes
// first, so that a table that is refused changes nothing.
func (k *Kernel) load(d *device, r dm.Request) error {
	t, err := k.newTable(d, r.Table)
	if err != nil {
		return err
	}
	d.setInactive(t)
	d.inactiveRO = r.Flags&dm.ReadOnly != 0
	return nil
}

func (d *device) setInactive(t *table) {
	if d.inactive != nil {
		d.inactive.close()
	}
	d.inactive = t
}

// chosen returns the table that a request asks about.
func (d *device) chosen(r dm.Request) *table {
	if r.Flags&dm.QueryInactive != 0 {
		return d.inactive
	}
	return d.live
}

// suspend waits for writes that wait for space, unless it is told not to.
func (k *Kernel) suspend(d *device, how dm.Flags) {
	for d.inFlight > 0 && how&dm.NoFlush == 0 {
		k.changed.Wait()
	}
	if d.suspended {
		return
	}
	d.suspended = true
	if d.live != nil {
		d.live.suspended()
	}
}

// resume swaps in the inactive table and starts it. If the start fails, the
// device stays suspended with the new table live; a table that reaches beyond a
// device below it is dropped, and the old one stays (drivers/md/dm-ioctl.c:
// do_resume).
func (k *Kernel) resume(d *device) error {
	if d.inactive != nil {
		k.suspend(d, 0)
		if d.inactive == nil { // the power was cut meanwhile
			return unix.ENXIO
		}
		if !d.inactive.fits() {
			d.setInactive(nil)
			return unix.EINVAL
		}
		if d.live != nil {
			d.live.close()
		}
		d.live, d.inactive, d.readOnly = d.inactive, nil, d.inactiveRO
	}
	if !d.suspended {
		return nil
	}
	if d.live == nil {
		return unix.EINVAL
	}
	if err := d.live.start(); err != nil {
		return err
	}
	d.suspended = false
	d.event()
	return nil
}

// message passes text to the device itself or to a target.
func (k *Kernel) message(d *device, r dm.Request) error {
	words := strings.Fields(r.Message)
	if len(words) == 0 {
		return unix.EINVAL
	}
	if words[0] == "@cancel_deferred_remove" {
		d.deferred = false
		return nil
	}
	if strings.HasPrefix(words[0], "@") {
		return unix.EINVAL
	}
	t := d.live.at(r.Sector)
	if t == nil {
		return unix.EINVAL
	}
	if m, ok := t.(interface{ message([]string) error }); ok {
		return m.message(words)
	}
	return unix.EINVAL
}
