// Package simulated is a machine in memory for a deviceset.DeviceSet: package
// dmsim's kernel, files that are its disks, and file systems that are a single
// block. Its processes can be killed and its power be cut at any step, and of what
// was written and not flushed, any part survives.
//
// It does not know what a DeviceSet is for; it is what one stands on.
package simulated

import (
	"maps"
	"sync"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// A World is a machine with what outlives its processes.
type World struct {
	kernel *dmsim.Kernel

	mu        sync.Mutex
	files     map[string]dm.DevNo   // by path: a file is a disk
	slots     map[string]int64      // the size of those that are there, by root
	mounts    map[string]*mount     // by path; gone when the power is cut
	locks     map[string]*Machine   // who has a root
	claims    map[dm.DevNo]*Machine // who has locked a disk
	alive     []*Machine
	free      int64            // bytes that files may still grow by
	total     int64            // and of the file system they are on
	given     map[string]int64 // bytes that a file was given, by path
	noBlocks  bool             // the file system gives no blocks ahead
	allocated int64            // bytes that each file takes
	refuse    error            // what writes to the journal's files answer, if not nil
	id        string
	now       int64
	uuids     int
}

// NewWorld returns a machine without disks, and with free bytes of room for files.
func NewWorld(free int64) *World {
	return &World{
		kernel: dmsim.New(), free: free, total: free, given: map[string]int64{}, id: "machine-1",
		files: map[string]dm.DevNo{}, slots: map[string]int64{},
		mounts: map[string]*mount{}, locks: map[string]*Machine{}, claims: map[dm.DevNo]*Machine{},
	}
}

// Kernel returns the machine's kernel, to look into it behind everybody's back.
func (w *World) Kernel() *dmsim.Kernel { return w.kernel }

// NewDisk adds a disk of size bytes under a path.
func (w *World) NewDisk(path string, size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[path] = w.kernel.NewDisk(dm.SectorsIn(size)).Dev()
}

// DiskAt returns what is under a path, or nil.
func (w *World) DiskAt(path string) *dmsim.Disk {
	w.mu.Lock()
	defer w.mu.Unlock()
	dev, ok := w.files[path]
	if !ok {
		return nil
	}
	return w.kernel.Disk(dev)
}

// Process starts a process on the machine, of which steps fail by the plan; nil is
// no plan.
func (w *World) Process(plan *dmfault.Plan) *Machine {
	m := &Machine{Kernel: w.kernel, world: w, plan: plan}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive = append(w.alive, m)
	return m
}

// Kill ends all processes: their files are closed and their locks free. What they
// had written to disks stays written.
func (w *World) Kill() {
	w.mu.Lock()
	alive := w.alive
	w.alive, w.locks, w.claims = nil, map[string]*Machine{}, map[dm.DevNo]*Machine{}
	w.mu.Unlock()
	for _, m := range alive {
		m.die()
	}
}

// PowerCut ends all processes and the kernel. Of the pages that were written and
// not flushed, those remain that keep chooses.
func (w *World) PowerCut(keep func(dmsim.Page) bool) {
	w.Kill()
	w.kernel.PowerCut(func(d *dmsim.Disk, number int64) bool {
		return keep(dmsim.Page{Disk: d.Dev(), Number: number})
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mounts = map[string]*mount{}
}

// Clone returns a copy of the machine, which nobody must be using. Mounts, which
// hold devices, are not copied.
func (w *World) Clone() *World {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := NewWorld(w.free)
	c.total, c.noBlocks, c.allocated, c.given = w.total, w.noBlocks, w.allocated, maps.Clone(w.given)
	c.kernel, c.id, c.now, c.uuids = w.kernel.Clone(), w.id, w.now, w.uuids
	for path, dev := range w.files {
		c.files[path] = dev
	}
	for root, size := range w.slots {
		c.slots[root] = size
	}
	return c
}

// RemoveRoot takes the journal's files of a root away, as an operator does by
// mistake. The files that a pool lies on stay.
func (w *World) RemoveRoot(root string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.slots, root)
}

// RefuseWrites makes writes to the journal's files answer an error, such as
// unix.ENOSPC, until it is called with nil.
func (w *World) RefuseWrites(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = err
}

func (w *World) refusal() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refuse
}

// SetFree sets how many bytes files may still grow by.
func (w *World) SetFree(free int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = free
}

// SetTotal sets the size of the file system that files are on.
func (w *World) SetTotal(total int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total = total
}

// RefuseBlocks has the file system give no blocks ahead.
func (w *World) RefuseBlocks() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noBlocks = true
}

// SetAllocated says how many bytes each file takes of its file system.
func (w *World) SetAllocated(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allocated = bytes
}

// MoveTo gives the machine another id: its disks are in another one now.
func (w *World) MoveTo(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id = id
}

// Now is a second later at each call.
func (w *World) tick() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now++
	return time.Unix(w.now, 0)
}
