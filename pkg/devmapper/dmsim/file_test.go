package dmsim_test

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// openDisk adds a small disk and opens it.
func openDisk(t *testing.T, k *dmsim.Kernel) (*dmsim.Disk, *dmsim.File) {
	t.Helper()
	d := k.NewDisk(64)
	f, err := k.Open(d.Dev())
	must(t, err)
	return d, f
}

func TestSyncIsOfOneDisk(t *testing.T) {
	k := dmsim.New()
	a, f := openDisk(t, k)
	b, g := openDisk(t, k)
	for _, page := range []int64{3, 0, 3, 1} {
		write(t, f, page*4096, 1)
	}
	write(t, g, 0, 1)
	want := []dmsim.Page{{a.Dev(), 3}, {a.Dev(), 0}, {a.Dev(), 1}, {b.Dev(), 0}}
	if have := k.Unflushed(); !slices.Equal(have, want) {
		t.Errorf("not flushed are %v, want %v", have, want)
	}
	must(t, f.Sync())
	if have := k.Unflushed(); !slices.Equal(have, want[3:]) {
		t.Errorf("after a sync, not flushed are %v, want %v", have, want[3:])
	}
	if a.Flushes() != 1 || b.Flushes() != 0 {
		t.Errorf("%d and %d flushes", a.Flushes(), b.Flushes())
	}
}

// A test can cut the power of clones, once for each choice of pages.
func TestPowerCutKeepsAnyChoice(t *testing.T) {
	k := dmsim.New()
	disk, f := openDisk(t, k)
	for page := range int64(3) {
		write(t, f, page*4096, 1)
	}
	pages := k.Unflushed()
	for choice := range 1 << len(pages) {
		c := k.Clone()
		var asked []dmsim.Page
		c.PowerCut(func(d *dmsim.Disk, page int64) bool {
			asked = append(asked, dmsim.Page{Disk: d.Dev(), Number: page})
			return choice>>(len(asked)-1)&1 == 1
		})
		if !slices.Equal(asked, pages) {
			t.Errorf("asked about %v, want %v", asked, pages)
		}
		g, err := c.Open(disk.Dev())
		must(t, err)
		for page := range 3 {
			wants(t, g, int64(page)*4096, byte(choice>>page&1))
		}
	}
	if have := k.Unflushed(); !slices.Equal(have, pages) {
		t.Errorf("not flushed are %v, want %v", have, pages)
	}
}

func TestPowerCutEndsFilesAndClaims(t *testing.T) {
	m := newMachineWithPool(t)
	disk := m.NewDisk(64)
	f, err := m.OpenExclusive(disk.Dev())
	must(t, err)
	m.powerCut(t, func(int64) bool { return true })
	if _, err := f.WriteAt(make([]byte, 512), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("error is %v", err)
	}
	g, err := m.OpenExclusive(disk.Dev())
	must(t, err)
	must(t, f.Close()) // takes nothing from g
	if _, err := m.OpenExclusive(disk.Dev()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("error is %v", err)
	}
	must(t, g.Close())
	must(t, m.pool.Remove())
	for _, disk := range []*dmsim.Disk{m.meta, m.data} {
		_, err := m.OpenExclusive(disk.Dev())
		must(t, err)
	}
}

// A superblock that was written over is there again if the write is lost.
func TestPowerCutMayRestoreAPool(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f, err := m.Open(m.meta.Dev())
	must(t, err)
	write(t, f, 0, 0)
	lost, kept := m.clone(), m.clone()
	lost.powerCut(t, func(int64) bool { return false })
	lost.has(t, 1, true)
	kept.powerCut(t, func(int64) bool { return true })
	kept.has(t, 1, false)
}

func TestCloseAll(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	must(t, m.pool.CreateThin(2))
	files := []*dmsim.File{m.open(t, 1), m.open(t, 2)}
	metadata, err := m.meta.Metadata()
	must(t, err)
	write(t, files[0], 0, 1)
	must(t, dm.ByName(m, "thin-1").RemoveDeferred())
	must(t, dm.ByName(m, "thin-2").Suspend(0))
	m.CloseAll()
	for _, f := range files {
		if _, err := f.ReadAt(make([]byte, 512), 0); !errors.Is(err, unix.EBADF) {
			t.Errorf("error is %v", err)
		}
		must(t, f.Close())
	}
	if _, err := metadata.Devices(); !errors.Is(err, unix.EBADF) {
		t.Errorf("error is %v", err)
	}
	if _, err := dm.ByName(m, "thin-1").Info(); !errors.Is(err, unix.ENXIO) {
		t.Errorf("thin 1: error is %v", err)
	}
	info, err := dm.ByName(m, "thin-2").Info()
	must(t, err)
	if !info.Suspended() || info.OpenCount != 0 {
		t.Errorf("thin 2 is suspended %v and open %d times", info.Suspended(), info.OpenCount)
	}
	wants(t, m.open(t, 1), 0, 1) // a process that dies loses nothing that it wrote
}

func TestDyingDisk(t *testing.T) {
	k := dmsim.New()
	disk, f := openDisk(t, k)
	write(t, f, 0, 1)
	must(t, f.Sync())
	for _, test := range []struct {
		reads, writes bool
	}{{true, false}, {false, true}, {true, true}, {false, false}} {
		disk.Fail(test.reads, test.writes)
		_, read := f.ReadAt(make([]byte, 512), 0)
		_, write := f.WriteAt(make([]byte, 512), 4096)
		for what, err := range map[string]error{"read": read, "write": write, "discard": f.Discard(4096, 4096), "sync": f.Sync()} {
			fails := test.writes
			if what == "read" {
				fails = test.reads
			}
			if errors.Is(err, unix.EIO) != fails || !fails && err != nil {
				t.Errorf("%+v: %s: error is %v", test, what, err)
			}
		}
	}
	wants(t, f, 0, 1)
}

// A pool that can neither write its metadata nor read it fails. Its next life
// begins with the last commit.
func TestPoolOnADyingDisk(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	m.meta.Fail(true, true)
	if err := m.pool.CreateThin(2); !errors.Is(err, dm.ErrUnknownOutcome) {
		t.Errorf("error is %v", err)
	}
	status, err := m.pool.PoolStatus()
	must(t, err)
	if status.Mode != dm.PoolFail {
		t.Errorf("the pool's mode is %v", status.Mode)
	}
	must(t, m.pool.Remove())
	m.meta.Fail(false, false)
	m.boot(t)
	m.has(t, 1, true)
	m.has(t, 2, false)
}

func TestExclusiveDisks(t *testing.T) {
	m := newMachineWithPool(t)
	if _, err := m.OpenExclusive(m.data.Dev()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a pool's disk: error is %v", err)
	}
	if _, err := m.OpenExclusive(dm.MakeDevNo(1, 1)); !errors.Is(err, unix.ENXIO) {
		t.Errorf("no such device: error is %v", err)
	}
	must(t, m.pool.Remove())
	f, err := m.OpenExclusive(m.data.Dev())
	must(t, err)
	_, err = dm.Activate(m, "pool", "", dm.Whole(poolSize, dm.ThinPool{
		Metadata: m.meta.Dev(), Data: m.data.Dev(), BlockSize: dm.MinBlockSize,
	}))
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("a pool on a disk that is taken: error is %v", err)
	}
	_, err = m.OpenExclusive(m.meta.Dev()) // the refused table let it go
	must(t, err)
	must(t, f.Close())
}

// The first free block is the next one to be used, found without a search.
func TestBlocksAreTakenInOrder(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	g, err := m.Open(m.data.Dev())
	must(t, err)
	size := dm.MinBlockSize.Bytes()
	for block := range int64(6) {
		write(t, f, block*size, byte(block+1))
	}
	for _, block := range []int64{4, 1} {
		must(t, f.Discard(block*size, size))
	}
	write(t, f, 6*size, 7) // what was discarded is not free before a commit, but was never committed
	must(t, f.Sync())
	write(t, f, 7*size, 8)
	write(t, f, 8*size, 9)
	for at, want := range []byte{1, 8, 3, 4, 9, 6, 7} {
		wants(t, g, int64(at)*size, want)
	}
	m.powerCut(t, func(int64) bool { return true })
	write(t, m.open(t, 1), 9*size, 10) // 8 and 9 were lost, so their blocks are free
	g, err = m.Open(m.data.Dev())
	must(t, err)
	for at, want := range []byte{1, 10, 3, 4, 9, 6, 7} {
		wants(t, g, int64(at)*size, want)
	}
}

func BenchmarkTenThousandThins(b *testing.B) {
	for b.Loop() {
		m := dmsim.New()
		meta, data := m.NewDisk(dm.MaxMetadataSize), m.NewDisk(poolSize)
		device, err := dm.Activate(m, "pool", "", dm.Whole(poolSize, dm.ThinPool{
			Metadata: meta.Dev(), Data: data.Dev(), BlockSize: dm.MinBlockSize,
		}))
		if err != nil {
			b.Fatal(err)
		}
		pool := dm.Pool{Device: device}
		for id := range dm.DeviceID(10000) {
			if err := pool.CreateThin(id); err != nil {
				b.Fatal(err)
			}
		}
	}
}
