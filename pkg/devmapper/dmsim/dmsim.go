// Package dmsim is device-mapper's thin provisioning in memory: the requests,
// errnos, modes and commits of the kernel, on disks that lose what was not
// flushed when their power is cut. It is for trying crashes by the thousand; the
// stories of package dmtest hold it to the real kernel.
//
// Time stands still in it: a pool commits when it is told or asked to, never of
// its own accord after a second, and a write that waits for space waits for ever.
// How much metadata a pool uses is estimated, and no udev is told anything.
package dmsim

import (
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Major is the major number of the simulated dm devices, and DiskMajor that of
// the disks below them.
const (
	Major     = 253
	DiskMajor = 240
)

// A Kernel is a machine with disks and device-mapper. It implements dm.Watcher.
type Kernel struct {
	mu      sync.Mutex
	changed *sync.Cond       // something that a waiter may wait for has changed
	disks   []*Disk          // by minor
	devices []*device        // by minor; nil where there is none
	events  uint64           // global event number
	files   map[uint64]*File // open, by number
	opened  uint64           // the next file's number
}

// New returns a machine without disks.
func New() *Kernel {
	k := &Kernel{files: map[uint64]*File{}}
	k.changed = sync.NewCond(&k.mu)
	return k
}

// Do answers a request as the kernel would.
func (k *Kernel) Do(r dm.Request) (dm.Reply, error) {
	if err := r.Check(); err != nil {
		return dm.Reply{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.changed.Broadcast()
	switch r.Command {
	case dm.Version:
		return dm.Reply{Version: dm.TargetVersion{Major: 4, Minor: 47}}, nil
	case dm.ListDevices:
		return k.list(r), nil
	case dm.DevCreate:
		return k.create(r)
	case dm.ListVersions:
		return dm.Reply{Targets: versions}, nil
	case dm.GetTargetVersion:
		return targetVersion(r.Name)
	}
	d := k.find(r)
	if d == nil {
		return dm.Reply{}, unix.ENXIO
	}
	reply, err := k.ask(d, r)
	if err != nil {
		return dm.Reply{}, err
	}
	return d.describe(reply), nil
}

// ask answers a request to one device.
func (k *Kernel) ask(d *device, r dm.Request) (dm.Reply, error) {
	switch r.Command {
	case dm.DevRemove:
		return dm.Reply{}, k.remove(d, r.Flags&dm.DeferredRemove != 0)
	case dm.DevRename:
		if r.Name == "" {
			return dm.Reply{}, unix.ENXIO // the one request that a uuid does not do for
		}
		return dm.Reply{}, k.rename(d, r.NewName)
	case dm.DevSuspend:
		if r.Flags&dm.Suspend != 0 {
			k.suspend(d, r.Flags)
			return dm.Reply{}, nil
		}
		return dm.Reply{}, k.resume(d)
	case dm.DevStatus:
		return dm.Reply{}, nil
	case dm.DevWait:
		for d.eventNr == r.EventNr && !d.removed {
			k.changed.Wait()
		}
		return dm.Reply{}, nil
	case dm.TableLoad:
		return dm.Reply{}, k.load(d, r)
	case dm.TableClear:
		d.setInactive(nil)
		return dm.Reply{}, nil
	case dm.TableDeps:
		return dm.Reply{Deps: d.chosen(r).deps()}, nil
	case dm.TableStatus:
		return dm.Reply{Lines: d.chosen(r).status(r.Flags)}, nil
	case dm.TargetMsg:
		return dm.Reply{}, k.message(d, r)
	}
	return dm.Reply{}, unix.ENOTTY
}

// versions are those of Linux 6.1.
var versions = []dm.TargetVersion{
	{Name: "flakey", Major: 1, Minor: 5},
	{Name: "thin-pool", Major: 1, Minor: 22},
	{Name: "thin", Major: 1, Minor: 22},
	{Name: "zero", Major: 1, Minor: 1},
	{Name: "linear", Major: 1, Minor: 4},
	{Name: "error", Major: 1, Minor: 5},
}

func targetVersion(name string) (dm.Reply, error) {
	at := slices.IndexFunc(versions, func(v dm.TargetVersion) bool { return v.Name == name })
	if at < 0 {
		return dm.Reply{}, unix.EINVAL
	}
	return dm.Reply{Targets: versions[at : at+1]}, nil
}

// list answers in order of minor numbers; the kernel's order is that of names.
func (k *Kernel) list(r dm.Request) (reply dm.Reply) {
	for _, d := range k.devices {
		if d != nil && strings.HasPrefix(d.name, r.Name) && strings.HasPrefix(d.uuid, r.UUID) {
			listed := dm.Listed{Name: d.name, Dev: d.dev, EventNr: d.eventNr}
			if r.Flags&dm.UUIDFlag != 0 {
				listed.UUID = d.uuid
			}
			reply.Devices = append(reply.Devices, listed)
		}
	}
	return reply
}
