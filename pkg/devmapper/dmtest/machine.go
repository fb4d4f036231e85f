// Package dmtest tells what device-mapper does, as stories that run on any
// machine: on the simulated one, and on the real kernel. What a story finds in
// the kernel the simulator must do too; so the simulator is itself tested, and
// whoever builds on it builds on facts.
//
// It also finds the real kernel for tests that need one: see RealMachine.
package dmtest

import (
	"io"
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A Machine is a kernel with disks.
type Machine interface {
	Kernel() dm.Watcher
	// NewDisk adds a disk that reads as zeros.
	NewDisk(size dm.Sectors) (Disk, error)
	// Open opens a dm device for I/O.
	Open(dm.Info) (File, error)
	// OpenExclusive opens a dm device with O_EXCL, as those do who want it for
	// themselves: a mount, a mkfs.
	OpenExclusive(dm.Info) (File, error)
	// PowerCut ends the machine's life and boots it again: dm devices are gone,
	// disks keep what was written to them. Files and disks stay usable for their
	// Close and for building anew.
	PowerCut() error
	// Leftovers names what is still attached, disks aside.
	Leftovers() ([]string, error)
}

// A Disk is a block device that a table can lie on.
type Disk interface {
	Dev() dm.DevNo
	// Open opens the disk for I/O.
	Open() (File, error)
	Grow(size dm.Sectors) error
	// Flushes counts the flushes that reached the disk.
	Flushes() (int, error)
	Close() error
}

// A File is a block device, open. I/O is of whole sectors and passes the page
// cache by.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Discard(offset, length int64) error
	Sync() error
}

// Run tells every story on a machine of its own. A story that leaves a device
// behind fails.
func Run(t *testing.T, boot func(testing.TB) Machine) {
	for _, chapter := range chapters {
		t.Run(chapter.name, func(t *testing.T) {
			for _, s := range chapter.stories {
				t.Run(s.name, func(t *testing.T) {
					m := boot(t)
					CheckLeftovers(t, m)
					s.tell(newLab(t, m))
				})
			}
		})
	}
}

// CheckLeftovers fails t if, when it ends, more is attached to the machine than
// now. Call it before what is cleaned up later.
func CheckLeftovers(t testing.TB, m Machine) {
	t.Helper()
	before, err := m.Leftovers()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, what := range before {
		known[what] = true
	}
	t.Cleanup(func() {
		after, err := m.Leftovers()
		if err != nil {
			t.Error(err)
		}
		for _, what := range after {
			if !known[what] {
				t.Errorf("%s left %s behind", t.Name(), what)
			}
		}
	})
}

type chapter struct {
	name    string
	stories []story
}

type story struct {
	name string
	tell func(*lab)
}

var chapters = []chapter{
	{"devices", deviceStories},
	{"messages", messageStories},
	{"activation", activationStories},
	{"modes", modeStories},
	{"commits", commitStories},
	{"snapshots", snapshotStories},
	{"suspension", suspensionStories},
	{"growth", growthStories},
	{"events", eventStories},
}
