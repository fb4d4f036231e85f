package devmapper

import "fmt"

// Udev is told with every resume, removal and renaming that the event is the
// device's own, and that it shall neither scan the device nor make links for
// what a tenant wrote to it. The lower half stays zero: no semaphore waits for
// udev, because in a container it would wait for ever (libdm's
// DM_UDEV_PRIMARY_SOURCE_FLAG and DISABLE_SUBSYSTEM, DISABLE_DISK and
// DISABLE_OTHER_RULES, shifted by DM_UDEV_FLAGS_SHIFT).
const udevFlags = (0x40 | 0x2 | 0x4 | 0x8) << 16

// A Device is a device-mapper device, known by its name or by its UUID. Having
// one says nothing about whether the kernel has it.
//
// Methods answer ENXIO where there is no such device (drivers/md/dm-ioctl.c:
// find_device).
type Device struct {
	kernel     Kernel
	name, uuid string // one of them
}

// ByName returns the device of that name.
func ByName(k Kernel, name string) Device { return Device{kernel: k, name: name} }

// ByUUID returns the device of that UUID, whatever its name.
func ByUUID(k Kernel, uuid string) Device { return Device{kernel: k, uuid: uuid} }

// String returns the name or UUID that d is known by.
func (d Device) String() string { return d.name + d.uuid }

func (d Device) do(r Request) (Reply, error) {
	r.Name, r.UUID = d.name, d.uuid
	return do(d.kernel, r)
}

// Info is what the kernel tells of a device (drivers/md/dm-ioctl.c: __dev_status).
type Info struct {
	Name string
	UUID string
	Dev  DevNo
	// OpenCount is how often the device is open: mounts, loops and devices
	// above count once each.
	OpenCount int
	EventNr   uint32
	Flags     Flags
}

// Suspended reports whether I/O waits for a resume of this device. A thin of a
// suspended pool waits as well: it has the flag InternalSuspend instead, and its
// own resume waits for that of the pool.
func (i Info) Suspended() bool { return i.Flags&Suspend != 0 }

// Active reports whether a table is live.
func (i Info) Active() bool { return i.Flags&ActivePresent != 0 }

// Inactive reports whether a table waits to become live at the next resume.
func (i Info) Inactive() bool { return i.Flags&InactivePresent != 0 }

// ReadOnly reports whether the device refuses writes.
func (i Info) ReadOnly() bool { return i.Flags&ReadOnly != 0 }

// RemovalDeferred reports whether the device goes away when it is last closed.
func (i Info) RemovalDeferred() bool { return i.Flags&DeferredRemove != 0 }

// Node returns the path that devtmpfs gives the device; OpenNode checks it. Where /dev is
// another file system, NodePath has one.
func (i Info) Node() string { return fmt.Sprintf("/dev/dm-%d", i.Dev.Minor()) }

// NodePath returns a path at which the device is.
func (i Info) NodePath() (string, error) { return NodePath(fmt.Sprintf("dm-%d", i.Dev.Minor()), i.Dev) }

func infoOf(r Reply) Info {
	return Info{Name: r.Name, UUID: r.UUID, Dev: r.Dev, OpenCount: r.OpenCount, EventNr: r.EventNr, Flags: r.Flags}
}

func (d Device) info(r Request) (Info, error) {
	reply, err := d.do(r)
	return infoOf(reply), err
}

// Create makes a device without a table. A name or a UUID that another device
// has is EBUSY (drivers/md/dm-ioctl.c: dm_hash_insert): the UUID is the
// kernel's own lock against making one thing twice.
func Create(k Kernel, name, uuid string) (Device, error) {
	_, err := do(k, Request{Command: DevCreate, Name: name, UUID: uuid})
	return ByName(k, name), err
}

// Activate makes a device, gives it its table and sets it running. If a step
// fails, what was made before it is removed again; should that fail too, the error
// tells, but is of the first cause alone: EBUSY means what it does for Create and
// Load.
func Activate(k Kernel, name, uuid string, table Table) (Device, error) {
	return activate(k, name, uuid, table, 0)
}

// ActivateReadOnly is Activate for a device that shall refuse writes.
func ActivateReadOnly(k Kernel, name, uuid string, table Table) (Device, error) {
	return activate(k, name, uuid, table, ReadOnly)
}

func activate(k Kernel, name, uuid string, table Table, readOnly Flags) (Device, error) {
	d, err := Create(k, name, uuid)
	if err != nil {
		return d, err
	}
	if err = d.load(table.Lines(), readOnly); err == nil {
		err = d.Resume()
	}
	if err == nil {
		return d, nil
	}
	if removeErr := d.Remove(); removeErr != nil {
		err = fmt.Errorf("%w (and what was made is still there: %s)", err, removeErr.Error())
	}
	return d, err
}

// Info describes the device.
func (d Device) Info() (Info, error) { return d.info(Request{Command: DevStatus}) }

// Load puts table into the inactive slot, in place of what was there; the next
// Resume makes it live. This is where a target looks at its parameters and opens
// what it needs, and for a thin or a pool the kernel waits for an RCU grace
// period: tens of milliseconds on several CPUs.
//
// Of a thin: ENODATA if the pool has no such id, EINVAL if the pool is suspended
// or failed. Of a pool: EBUSY if another pool has one of its devices, EINVAL for
// another block size than it was made with.
func (d Device) Load(table Table) error { return d.load(table.Lines(), 0) }

// LoadReadOnly is Load for a device that shall refuse writes.
func (d Device) LoadReadOnly(table Table) error { return d.load(table.Lines(), ReadOnly) }

func (d Device) load(lines []Line, readOnly Flags) error {
	_, err := d.do(Request{Command: TableLoad, Table: lines, Flags: readOnly})
	return err
}

// ClearInactive empties the inactive slot. That it is empty already is no error.
func (d Device) ClearInactive() error {
	_, err := d.do(Request{Command: TableClear})
	return err
}

// Suspend holds back I/O until Resume; that the device is suspended already is
// no error. The file system on it is frozen first, and queued I/O waited for,
// unless how holds SkipLockFS and NoFlush. It lasts as long as the I/O that it
// waits for: on a full pool that queues, a minute.
//
// Whoever suspends a device in use wants WhileSuspended instead.
func (d Device) Suspend(how Flags) error {
	_, err := d.do(Request{Command: DevSuspend, Flags: Suspend | how&(SkipLockFS|NoFlush)})
	return err
}

// Resume makes a loaded table live and lets I/O go on; that the device runs
// already is no error. A resume that fails leaves the device suspended with the
// new table live, and fails again when repeated: Swap knows the way back.
func (d Device) Resume() error {
	_, err := d.do(Request{Command: DevSuspend, EventNr: udevFlags})
	return err
}

// Remove takes the device away: EBUSY if it is open, or a pool with thins.
func (d Device) Remove() error {
	_, err := d.do(Request{Command: DevRemove, EventNr: udevFlags})
	return err
}

// RemoveDeferred takes the device away now if it is not open, else when it is
// last closed. Until then it goes on working and can be opened again.
func (d Device) RemoveDeferred() error {
	_, err := d.do(Request{Command: DevRemove, Flags: DeferredRemove, EventNr: udevFlags})
	return err
}

// CancelDeferredRemove takes a RemoveDeferred back: EBUSY if the removal has
// begun (drivers/md/dm.c: dm_cancel_deferred_remove).
func (d Device) CancelDeferredRemove() error {
	_, err := d.Message(0, "@cancel_deferred_remove")
	return err
}

// Rename gives the device another name: EBUSY if it is taken. The Device
// returned is known by that name. For this alone the kernel wants the old name,
// so a device known by its UUID is asked for it first.
func (d Device) Rename(name string) (Device, error) {
	named := d
	if d.name == "" {
		info, err := d.Info()
		if err != nil {
			return d, err
		}
		named = ByName(d.kernel, info.Name)
	}
	if _, err := named.do(Request{Command: DevRename, NewName: name, EventNr: udevFlags}); err != nil {
		return d, err
	}
	return ByName(d.kernel, name), nil
}

// Table returns the live table; it is empty where there is none.
func (d Device) Table() (Table, error) { return d.table(0) }

// InactiveTable returns the table that waits to become live.
func (d Device) InactiveTable() (Table, error) { return d.table(QueryInactive) }

func (d Device) table(which Flags) (Table, error) {
	lines, err := d.status(StatusTable | NoFlush | which)
	if err != nil {
		return nil, err
	}
	return ParseTable(lines)
}

// Status returns the status lines of the live table. It never commits: the
// figures of a pool may be a second old (drivers/md/dm-thin.c: pool_status).
func (d Device) Status() ([]Line, error) {
	return d.status(NoFlush)
}

func (d Device) status(how Flags) ([]Line, error) {
	reply, err := d.do(Request{Command: TableStatus, Flags: how})
	return reply.Lines, err
}

// statusOf returns the status text of a device that is one target of a type.
func (d Device) statusOf(targetType string, how Flags) (string, error) {
	lines, err := d.status(how)
	if err != nil {
		return "", err
	}
	if len(lines) != 1 || lines[0].Type != targetType {
		return "", &Error{Op: "status", Device: d.String(), Err: fmt.Errorf("not a %s: %q", targetType, lines)}
	}
	return lines[0].Params, nil
}

// ThinStatus returns the status of a thin device.
func (d Device) ThinStatus() (ThinStatus, error) {
	text, err := d.statusOf(Thin{}.TargetType(), NoFlush)
	if err != nil {
		return ThinStatus{}, err
	}
	return ParseThinStatus(text)
}

// Deps returns the devices that the live table uses.
func (d Device) Deps() ([]DevNo, error) {
	reply, err := d.do(Request{Command: TableDeps})
	return reply.Deps, err
}

// Message sends text to the target at a sector, or with a leading @ to the
// device itself, and returns the answer of those targets that give one.
func (d Device) Message(sector Sectors, text string) (string, error) {
	reply, err := d.do(Request{Command: TargetMsg, Sector: sector, Message: text})
	return reply.Message, err
}

// Wait returns when the device's event number differs from seen. It cannot be
// called off: a Watch can. The kernel answers with the status too, so NoFlush
// keeps each event of a pool from being followed by a commit.
func (d Device) Wait(seen uint32) (Info, error) {
	return d.info(Request{Command: DevWait, EventNr: seen, Flags: NoFlush})
}
