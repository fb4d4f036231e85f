package simulated

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// A Machine is a World as one process has it: a deviceset.Machine. When the process
// is dead, whatever it asks answers dmfault.ErrCrashed.
type Machine struct {
	*dmsim.Kernel
	world *World
	plan  *dmfault.Plan

	mu    sync.Mutex
	dead  bool
	open  map[io.Closer]struct{}
	steps []string // if Trace was called
	trace bool
	rules map[deviceset.Rule]int
}

var _ deviceset.Machine = (*Machine)(nil)

// Trace makes the machine write down its steps.
func (m *Machine) Trace() { m.trace = true }

// Break makes the process's steps fail by a plan from now on.
func (m *Machine) Break(plan *dmfault.Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan = plan
}

// Steps returns the steps since the last call.
func (m *Machine) Steps() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	steps := m.steps
	m.steps = nil
	return steps
}

// step carries out a step by the plan.
func (m *Machine) step(what string, do func() error) error {
	m.mu.Lock()
	dead, plan := m.dead, m.plan
	if m.trace && !dead {
		m.steps = append(m.steps, what)
	}
	m.mu.Unlock()
	switch {
	case dead:
		return dmfault.ErrCrashed
	case plan == nil:
		return do()
	}
	return plan.Do(what, do)
}

// Do asks the kernel.
func (m *Machine) Do(r dm.Request) (reply dm.Reply, err error) {
	err = m.step(r.String(), func() (err error) {
		reply, err = m.Kernel.Do(r)
		return err
	})
	if err != nil {
		return dm.Reply{}, err
	}
	return reply, nil
}

// ID returns the machine's id.
func (m *Machine) ID() string {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	return m.world.id
}

// NewUUID counts.
func (m *Machine) NewUUID() string {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	m.world.uuids++
	return fmt.Sprintf("%032x", m.world.uuids)
}

// Decided counts the rules that decided something.
func (m *Machine) Decided(r deviceset.Rule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rules == nil {
		m.rules = map[deviceset.Rule]int{}
	}
	m.rules[r]++
}

// Rules returns how often each rule decided.
func (m *Machine) Rules() map[deviceset.Rule]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.rules)
}

// MakeRoot does nothing: a root is no more than the begin of names.
func (m *Machine) MakeRoot(string, int, int) error { return nil }

// Now is a second later at each call.
func (m *Machine) Now() time.Time { return m.world.tick() }

// die closes what the process has open.
func (m *Machine) die() {
	m.mu.Lock()
	m.dead = true
	open := m.open
	m.open = nil
	m.mu.Unlock()
	for c := range open {
		_ = c.Close() // whoever dies does not ask
	}
}

// keep notes what is to be closed when the process dies.
func (m *Machine) keep(c io.Closer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open == nil {
		m.open = map[io.Closer]struct{}{}
	}
	m.open[c] = struct{}{}
}

// release closes what was kept, unless the process is dead.
func (m *Machine) release(c io.Closer) error {
	m.mu.Lock()
	_, open := m.open[c]
	delete(m.open, c)
	crashed := m.dead || m.plan != nil && m.plan.Crashed()
	if open && crashed {
		m.keepLocked(c)
	}
	m.mu.Unlock()
	if crashed {
		return dmfault.ErrCrashed
	}
	if !open {
		return nil
	}
	return c.Close()
}

func (m *Machine) keepLocked(c io.Closer) { m.open[c] = struct{}{} }

// Lock takes a root for the process.
func (m *Machine) Lock(root string) (io.Closer, error) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	if other := m.world.locks[root]; other != nil {
		return nil, fmt.Errorf("%w: %s is locked", deviceset.ErrInUse, root)
	}
	m.world.locks[root] = m
	return lock{m, root}, nil
}

type lock struct {
	machine *Machine
	root    string
}

func (l lock) Close() error {
	l.machine.world.mu.Lock()
	defer l.machine.world.mu.Unlock()
	if l.machine.world.locks[l.root] == l.machine {
		delete(l.machine.world.locks, l.root)
	}
	return nil
}

func slotPaths(root string) [2]string { return [2]string{root + "/state.0", root + "/state.1"} }

// SlotPaths returns the paths of the journal's files.
func SlotPaths(root string) [2]string { return slotPaths(root) }

// MakeSlots makes the journal's files, which are there when all of it is done.
func (m *Machine) MakeSlots(root string, size int64) error {
	if err := m.step("forget old journal", func() error { m.world.RemoveRoot(root); return nil }); err != nil {
		return err
	}
	return m.step("make journal", func() error {
		for _, path := range slotPaths(root) {
			m.world.NewDisk(path, size)
		}
		m.world.mu.Lock()
		defer m.world.mu.Unlock()
		m.world.slots[root] = size
		return nil
	})
}

// OpenSlots opens the journal's files.
func (m *Machine) OpenSlots(root string) (slots [2]deviceset.Block, err error) {
	m.world.mu.Lock()
	size, there := m.world.slots[root]
	m.world.mu.Unlock()
	if !there {
		return slots, &fs.PathError{Op: "open", Path: slotPaths(root)[0], Err: fs.ErrNotExist}
	}
	for i, path := range slotPaths(root) {
		b, err := m.openPath(fmt.Sprintf("slot %d", i), path, size)
		if err != nil {
			return slots, err
		}
		b.refusal = m.world.refusal
		slots[i] = b
	}
	return slots, nil
}

func (m *Machine) openPath(what, path string, size int64) (*block, error) {
	m.world.mu.Lock()
	dev, ok := m.world.files[path]
	m.world.mu.Unlock()
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return m.openDev(what, dev, size, m.Kernel.Open)
}

func (m *Machine) openDev(what string, dev dm.DevNo, size int64, open func(dm.DevNo) (*dmsim.File, error)) (*block, error) {
	b := &block{machine: m, what: what, size: size}
	err := m.step("open "+what, func() (err error) {
		if b.File, err = open(dev); err == nil {
			m.keep(b.File) // also if the process dies of it
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// A block is a disk or device, open.
type block struct {
	*dmsim.File
	machine *Machine
	what    string
	size    int64
	refusal func() error
}

func (b *block) Size() (int64, error) { return b.size, nil }

func (b *block) ReadAt(p []byte, at int64) (n int, err error) {
	err = b.machine.step("read "+b.what, func() (err error) {
		n, err = b.File.ReadAt(p, at)
		return err
	})
	return n, err
}

func (b *block) WriteAt(p []byte, at int64) (n int, err error) {
	err = b.machine.step("write "+b.what, func() (err error) {
		if b.refusal != nil && b.refusal() != nil {
			return &fs.PathError{Op: "write", Path: b.what, Err: b.refusal()}
		}
		n, err = b.File.WriteAt(p, at)
		return err
	})
	return n, err
}

func (b *block) Sync() error { return b.machine.step("sync "+b.what, b.File.Sync) }

func (b *block) Discard(at, length int64) error {
	return b.machine.step("discard "+b.what, func() error { return b.File.Discard(at, length) })
}

func (b *block) Close() error { return b.machine.release(b.File) }

// Size returns how large the disk is now: it may have grown.
func (d *disk) Size() (int64, error) { return d.machine.Disk(d.dev).Size().Bytes(), nil }

// A disk is a file or a disk, by its path.
type disk struct {
	*block
	path string
	dev  dm.DevNo
}

func (d *disk) Path() string  { return d.path }
func (d *disk) Dev() dm.DevNo { return d.dev }

// InUse tries to open the disk exclusively.
func (d *disk) InUse() (bool, error) {
	f, err := d.machine.OpenExclusive(d.dev)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

// Claim locks the disk.
func (d *disk) Claim() (release func() error, err error) {
	w := d.machine.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claims[d.dev] != nil {
		return nil, fmt.Errorf("%w: %s is locked", deviceset.ErrInUse, d.path)
	}
	w.claims[d.dev] = d.machine
	return func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.claims, d.dev)
		return nil
	}, nil
}

// Grow makes the disk larger, at the cost of free space.
func (d *disk) Grow(size int64, with deviceset.Filling) error {
	return d.machine.step("grow "+d.path, func() error {
		have := d.machine.Disk(d.dev).Size().Bytes()
		if !d.isFile() && have < size {
			return fmt.Errorf("%w: %s has %d bytes, want %d", deviceset.ErrInvalid, d.path, have, size)
		}
		if err := d.machine.world.take(d.path, have, size, with); err != nil {
			return err
		}
		if size > have {
			d.machine.Disk(d.dev).Grow(dm.SectorsIn(size))
		}
		return nil
	})
}

func (d *disk) isFile() bool { return d.what == "file" }

// take takes room for a file of have bytes that is to have size.
func (w *World) take(path string, have, size int64, with deviceset.Filling) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var more int64
	switch with {
	case deviceset.Blocks:
		if w.noBlocks {
			return unix.EOPNOTSUPP
		}
		more = max(have, size) - w.given[path]
	case deviceset.Zeros:
		more = size - have
	}
	if more > w.free {
		return unix.ENOSPC
	}
	if more > 0 {
		w.free -= more
		w.given[path] += more
	}
	return nil
}

// OpenFile attaches a file.
func (m *Machine) OpenFile(path string, size int64, with deviceset.Filling) (deviceset.Disk, error) {
	existing := m.world.DiskAt(path)
	if existing == nil && size == 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if existing == nil {
		err := m.step("make "+path, func() error {
			if err := m.world.take(path, 0, size, with); err != nil {
				return err
			}
			m.world.NewDisk(path, size)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	d, err := m.openDisk("file", path)
	if err != nil {
		return nil, err
	}
	if size > existingSize(existing) || existing != nil && with == deviceset.Blocks {
		if err := d.Grow(size, with); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

func existingSize(d *dmsim.Disk) int64 {
	if d == nil {
		return math.MaxInt64 // it was just made
	}
	return d.Size().Bytes()
}

func (m *Machine) openDisk(what, path string) (*disk, error) {
	found := m.world.DiskAt(path)
	if found == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	b, err := m.openPath(what, path, found.Size().Bytes())
	if err != nil {
		return nil, err
	}
	return &disk{b, path, found.Dev()}, nil
}

// OpenDisk opens a disk.
func (m *Machine) OpenDisk(path string) (deviceset.Disk, error) {
	d, err := m.openDisk("disk", path)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// OpenNumber opens a disk or device by its number.
func (m *Machine) OpenNumber(dev dm.DevNo) (deviceset.Block, error) {
	var size int64
	if d := m.Disk(dev); d != nil {
		size = d.Size().Bytes()
	}
	b, err := m.openDev(dev.String(), dev, size, m.Kernel.Open)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// OpenDevice opens a dm device.
func (m *Machine) OpenDevice(i dm.Info, exclusive bool) (deviceset.Block, error) {
	open := m.Kernel.Open
	if exclusive {
		open = m.Kernel.OpenExclusive
	}
	table, err := dm.ByName(m.Kernel, i.Name).Table()
	if err != nil {
		return nil, err
	}
	b, err := m.openDev("device", i.Dev, table.Length().Bytes(), open)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Node returns the path of a dm device.
func (m *Machine) Node(i dm.Info) (string, error) { return i.Node(), nil }

// Metadata opens a pool's metadata.
func (m *Machine) Metadata(dev dm.DevNo) (deviceset.Metadata, error) {
	var opened *dmsim.Metadata
	err := m.step("read metadata", func() (err error) {
		if opened, err = m.MetadataOf(dev); err == nil {
			m.keep(opened)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return metadata{opened, m}, nil
}

type metadata struct {
	*dmsim.Metadata
	machine *Machine
}

func (m metadata) Close() error { return m.machine.release(m.Metadata) }

// Allocated returns what a file was given, or what the world was told that files take.
func (m *Machine) Allocated(path string) (int64, error) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	if _, ok := m.world.files[path]; !ok {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	return max(m.world.allocated, m.world.given[path]), nil
}

// Space returns what files may still grow by, and what they and the rest have.
func (m *Machine) Space(string) (deviceset.Space, error) {
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	return deviceset.Space{Free: m.world.free, Total: m.world.total}, nil
}

// Dead reports whether the process has come to its end.
func (m *Machine) Dead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead || m.plan != nil && m.plan.Crashed()
}
