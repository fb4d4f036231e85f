package devmapper

import "fmt"

// A Kernel answers device-mapper requests.
//
// Do may be called by several goroutines at once, and a request may take as
// long as the I/O it waits for: for ever, where a disk hangs. Never call it
// with a lock held that another volume or a health check needs.
//
// The error of a refused request is the kernel's errno, bare or wrapped, and
// nothing was changed unless the request's own documentation says otherwise.
type Kernel interface {
	Do(Request) (Reply, error)
}

// A Command is a kind of request (include/uapi/linux/dm-ioctl.h: the DM_*_CMD
// numbers). REMOVE_ALL and DEV_SET_GEOMETRY are left out: the one takes
// everybody's devices, the other serves disks with cylinders.
type Command uint8

// The commands, by the kernel's own names and numbers.
const (
	Version          Command = 0  // asks for the driver's version
	ListDevices      Command = 2  // lists devices; Name and UUID filter by prefix
	DevCreate        Command = 3  // makes a device without a table
	DevRemove        Command = 4  // removes a device
	DevRename        Command = 5  // gives a device another name
	DevSuspend       Command = 6  // suspends with flag Suspend, resumes without
	DevStatus        Command = 7  // describes a device
	DevWait          Command = 8  // waits until a device's event number differs from EventNr
	TableLoad        Command = 9  // loads a table into the inactive slot
	TableClear       Command = 10 // empties the inactive slot
	TableDeps        Command = 11 // lists the devices that a table uses
	TableStatus      Command = 12 // status lines, or with flag StatusTable the table
	ListVersions     Command = 13 // lists the target types
	TargetMsg        Command = 14 // sends a message to the target at Sector
	DevArmPoll       Command = 16 // makes poll(2) wait for events from now on
	GetTargetVersion Command = 17 // asks for one target's version, loading its module
)

var commandNames = map[Command]string{
	Version:          "version",
	ListDevices:      "list devices",
	DevCreate:        "create device",
	DevRemove:        "remove device",
	DevRename:        "rename device",
	DevSuspend:       "resume",
	DevStatus:        "info",
	DevWait:          "wait",
	TableLoad:        "load table",
	TableClear:       "clear table",
	TableDeps:        "deps",
	TableStatus:      "status",
	ListVersions:     "list targets",
	TargetMsg:        "message",
	DevArmPoll:       "arm poll",
	GetTargetVersion: "target version",
}

// String names c as errors and traces do.
func (c Command) String() string { return commandNames[c] }

// Flags say how a request is meant, and in a Reply what is so of the device
// (include/uapi/linux/dm-ioctl.h).
type Flags uint32

// The flags, by the kernel's own names and values.
const (
	ReadOnly        Flags = 1 << 0  // in: make it so; out: it is so
	Suspend         Flags = 1 << 1  // in: DevSuspend suspends; out: is suspended
	StatusTable     Flags = 1 << 4  // in: TableStatus answers with the table
	ActivePresent   Flags = 1 << 5  // out: a table is live
	InactivePresent Flags = 1 << 6  // out: a table waits in the inactive slot
	BufferFull      Flags = 1 << 8  // out: the reply did not fit; Control asks again with more room
	SkipLockFS      Flags = 1 << 10 // in: suspend without freezing the file system
	NoFlush         Flags = 1 << 11 // in: suspend without waiting for queued I/O; status without a commit
	QueryInactive   Flags = 1 << 12 // in: ask about the inactive table
	UeventGenerated Flags = 1 << 13 // out: udev was told
	UUIDFlag        Flags = 1 << 14 // in: ListDevices reports UUIDs; DevRename sets the UUID
	DataOut         Flags = 1 << 16 // out: a message was answered with text
	DeferredRemove  Flags = 1 << 17 // in: remove when last closed; out: that is scheduled
	InternalSuspend Flags = 1 << 18 // out: suspended by another target, such as its pool
)

// A Request is one question or order to device-mapper. The device is named by
// Name or by UUID, not by both; only DevCreate takes both.
type Request struct {
	Command Command
	Name    string // at most 127 bytes, no slash
	UUID    string // at most 128 bytes
	Flags   Flags
	EventNr uint32  // DevWait: the number already seen; DevSuspend, DevRemove, DevRename: what udev is told
	Table   []Line  // TableLoad
	Sector  Sectors // TargetMsg: which target of the table
	Message string  // TargetMsg
	NewName string  // DevRename
}

// device tells whom r is about.
func (r Request) device() string {
	if r.Name != "" {
		return r.Name
	}
	return r.UUID
}

// String prints r in one line, as traces show it.
func (r Request) String() string {
	s := r.operation()
	for _, word := range []string{r.Name, r.UUID, r.NewName, r.Message} {
		if word != "" {
			s += " " + word
		}
	}
	for _, line := range r.Table {
		s += " " + line.String()
	}
	return s
}

// operation names what r asks for; a suspend and a resume are one command.
func (r Request) operation() string {
	switch {
	case r.Command == DevSuspend && r.Flags&Suspend != 0:
		return "suspend"
	case r.Command == TableStatus && r.Flags&StatusTable != 0:
		return "table"
	}
	return r.Command.String()
}

// A Reply is what the kernel answered. Fields that the command does not fill
// are zero.
type Reply struct {
	Version   TargetVersion // of the driver's interface; Name is empty
	Flags     Flags
	OpenCount int    // how often the device is open, mounts and devices above included
	EventNr   uint32 // how many events the device has raised
	Dev       DevNo
	Name      string
	UUID      string
	Lines     []Line          // TableStatus
	Deps      []DevNo         // TableDeps
	Devices   []Listed        // ListDevices
	Targets   []TargetVersion // ListVersions, GetTargetVersion
	Message   string          // TargetMsg, where the target answers with text
}

// A Line is one line of a table or of its status, as text: the kernel's own form.
type Line struct {
	Start, Length Sectors
	Type          string // at most 15 bytes
	Params        string
}

// A Listed is a device as ListDevices reports it.
type Listed struct {
	Name    string
	UUID    string // empty if it has none or the kernel did not tell
	Dev     DevNo
	EventNr uint32
}

// A TargetVersion is the version of a target type, or with an empty Name of
// the driver's interface.
type TargetVersion struct {
	Name                string
	Major, Minor, Patch uint32
}

// String prints the numbers: <major>.<minor>.<patch>.
func (v TargetVersion) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// AtLeast reports whether v is major.minor or newer. A newer major is not: it
// breaks what the older one promised.
func (v TargetVersion) AtLeast(major, minor uint32) bool {
	return v.Major == major && v.Minor >= minor
}
