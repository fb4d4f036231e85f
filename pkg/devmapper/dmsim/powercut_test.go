package dmsim_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// What the real kernel cannot show at will: a power cut that loses what was not
// flushed, or some of it.

const poolSize = 16 * dm.MinBlockSize

type machineWithPool struct {
	*dmsim.Kernel
	meta, data *dmsim.Disk
	pool       dm.Pool
}

func newMachineWithPool(t *testing.T) *machineWithPool {
	m := &machineWithPool{Kernel: dmsim.New()}
	m.meta, m.data = m.NewDisk(4096), m.NewDisk(poolSize)
	m.boot(t)
	return m
}

func (m *machineWithPool) boot(t *testing.T) {
	t.Helper()
	device, err := dm.Activate(m, "pool", "", dm.Whole(poolSize, dm.ThinPool{
		Metadata: m.meta.Dev(), Data: m.data.Dev(), BlockSize: dm.MinBlockSize,
	}))
	must(t, err)
	m.pool = dm.Pool{Device: device}
}

// powerCut keeps of the unflushed pages of the data disk those that keep chooses.
func (m *machineWithPool) powerCut(t *testing.T, keep func(page int64) bool) {
	t.Helper()
	m.PowerCut(func(_ *dmsim.Disk, page int64) bool { return keep(page) })
	m.boot(t)
}

func (m *machineWithPool) open(t *testing.T, id dm.DeviceID) *dmsim.File {
	t.Helper()
	pool, err := m.pool.Info()
	must(t, err)
	device, err := dm.Activate(m, fmt.Sprint("thin-", id), "", dm.Whole(2*poolSize, dm.Thin{Pool: pool.Dev, ID: id}))
	must(t, err)
	info, err := device.Info()
	must(t, err)
	f, err := m.Open(info.Dev)
	must(t, err)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f *dmsim.File, at int64, content byte) {
	t.Helper()
	_, err := f.WriteAt(bytes.Repeat([]byte{content}, 4096), at)
	must(t, err)
}

func wants(t *testing.T, f *dmsim.File, at int64, content byte) {
	t.Helper()
	b := make([]byte, 4096)
	_, err := f.ReadAt(b, at)
	must(t, err)
	if !bytes.Equal(b, bytes.Repeat([]byte{content}, 4096)) {
		t.Errorf("at %d stands %d, want %d", at, b[0], content)
	}
}

func TestPowerCutLosesNewBlocks(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	write(t, f, 0, 7)
	m.powerCut(t, func(int64) bool { return true }) // the data is there, and nothing leads to it
	wants(t, m.open(t, 1), 0, 0)
	status, err := m.pool.PoolStatus()
	must(t, err)
	if status.Data.Used != 0 {
		t.Errorf("%d data blocks are in use", status.Data.Used)
	}
}

func TestPowerCutKeepsSomePages(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	for page := range int64(4) {
		write(t, f, page*4096, 1)
	}
	must(t, f.Sync())
	for page := range int64(4) {
		write(t, f, page*4096, 2)
	}
	m.powerCut(t, func(page int64) bool { return page%2 == 0 })
	f = m.open(t, 1)
	for page := range int64(4) {
		wants(t, f, page*4096, byte(2-page%2))
	}
}

func TestPowerCutAfterSnapshot(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	write(t, f, 0, 1)
	must(t, m.pool.CreateSnap(2, 1)) // commits, so the block is durable
	write(t, f, 0, 2)                // copied, and not committed
	m.powerCut(t, func(int64) bool { return false })
	wants(t, m.open(t, 1), 0, 1)
	wants(t, m.open(t, 2), 0, 1)
}

// The data device is flushed first, and if it cannot be, nothing is committed.
func TestCommitWaitsForTheData(t *testing.T) {
	m := &machineWithPool{Kernel: dmsim.New()}
	m.meta, m.data = m.NewDisk(4096), m.NewDisk(poolSize)
	below := dm.Linear{Dev: m.data.Dev()}
	flakey, err := dm.Activate(m, "data", "", dm.Whole(poolSize, dmtest.Well(below)))
	must(t, err)
	info, err := flakey.Info()
	must(t, err)
	device, err := dm.Activate(m, "pool", "", dm.Whole(poolSize, dm.ThinPool{
		Metadata: m.meta.Dev(), Data: info.Dev, BlockSize: dm.MinBlockSize,
	}))
	must(t, err)
	m.pool = dm.Pool{Device: device}
	must(t, m.pool.CreateThin(1))
	must(t, flakey.Swap(dm.Whole(poolSize, dmtest.Ill(below, dmtest.ErrorWrites)), dm.NoFlush))
	if err := m.pool.CreateThin(2); !errors.Is(err, dm.ErrUnknownOutcome) {
		t.Errorf("error is %v", err)
	}
	m.powerCut(t, func(int64) bool { return true })
	for id, want := range map[dm.DeviceID]bool{1: true, 2: false} {
		if have, err := m.pool.Has(id); err != nil || have != want {
			t.Errorf("thin %d: there %v, want %v, error %v", id, have, want, err)
		}
	}
}

func TestPowerCutWakesWhoWaits(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	done := make(chan error)
	go func() { // more than the pool has, and it queues
		var err error
		for block := int64(0); block < 17 && err == nil; block++ {
			_, err = f.WriteAt(make([]byte, 4096), block*dm.MinBlockSize.Bytes())
		}
		done <- err
	}()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		status, err := m.pool.PoolStatus()
		must(t, err)
		if status.Mode == dm.PoolOutOfDataSpace {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("the pool never became full: %v", status)
		}
	}
	m.PowerCut(func(*dmsim.Disk, int64) bool { return true })
	if err := <-done; err == nil {
		t.Error("a write succeeded after the power was cut")
	}
}

func TestFilesAreOfWholeSectors(t *testing.T) {
	m := newMachineWithPool(t)
	f, err := m.Open(m.data.Dev())
	must(t, err)
	if _, err := f.WriteAt(make([]byte, 100), 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("100 bytes: error is %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 512), poolSize.Bytes()); !errors.Is(err, unix.EIO) {
		t.Errorf("beyond the end: error is %v", err)
	}
	must(t, f.Close())
	if _, err := f.ReadAt(make([]byte, 512), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed: error is %v", err)
	}
	if _, err := m.Open(dm.MakeDevNo(1, 1)); !errors.Is(err, unix.ENXIO) {
		t.Errorf("no such device: error is %v", err)
	}
}

// A recorder notes what a test would fail with.
type recorder struct {
	testing.TB
	failed  []string
	cleanup []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Name() string     { return "TestUntidy" }
func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}

func TestLeftoversAreFound(t *testing.T) {
	sim := dmsim.New()
	before, err := dm.Create(sim, "before", "")
	must(t, err)
	r := &recorder{TB: t}
	dmtest.CheckLeftovers(r, machine{sim})
	_, err = dm.Create(sim, "after", "")
	must(t, err)
	must(t, before.Remove())
	r.cleanup[0]()
	if fmt.Sprint(r.failed) != "[TestUntidy left device after behind]" {
		t.Errorf("the test failed with %q", r.failed)
	}
}
