package dmsim_test

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// clone returns the machine's clone, whose pool is that of the same name.
func (m *machineWithPool) clone() *machineWithPool {
	k := m.Clone()
	return &machineWithPool{
		Kernel: k, meta: k.Disk(m.meta.Dev()), data: k.Disk(m.data.Dev()),
		pool: dm.Pool{Device: dm.ByName(k, "pool")},
	}
}

// reopen opens a thin device that is active.
func (m *machineWithPool) reopen(t *testing.T, id dm.DeviceID) *dmsim.File {
	t.Helper()
	info, err := dm.ByName(m, fmt.Sprint("thin-", id)).Info()
	must(t, err)
	f, err := m.Open(info.Dev)
	must(t, err)
	return f
}

func (m *machineWithPool) has(t *testing.T, id dm.DeviceID, want bool) {
	t.Helper()
	if have, err := m.pool.Has(id); err != nil || have != want {
		t.Errorf("thin %d: there %v, want %v, error %v", id, have, want, err)
	}
}

func TestClonesHearNothingOfEachOther(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	write(t, f, 0, 1)
	must(t, f.Sync())
	c := m.clone()

	must(t, m.pool.CreateThin(2))
	write(t, f, 0, 2)
	must(t, c.pool.CreateSnap(3, 1))
	g := c.reopen(t, 1)
	wants(t, g, 0, 1)
	write(t, g, 4096, 3)

	for id, of := range map[dm.DeviceID]*machineWithPool{2: m, 3: c} {
		of.has(t, id, true)
		of.has(t, 5-id, false)
	}
	wants(t, f, 0, 2)
	wants(t, f, 4096, 0)
	wants(t, c.open(t, 3), 0, 1)
	must(t, f.Close())
	must(t, dm.ByName(m, "thin-1").Remove())
	if err := c.pool.Delete(1); !errors.Is(err, unix.EBUSY) {
		t.Errorf("in the clone the thin is active: error is %v", err)
	}
	for _, machine := range []*machineWithPool{m, c} {
		machine.powerCut(t, func(int64) bool { return false })
	}
	m.has(t, 2, true)
	c.has(t, 3, true)
}

// What was not committed when the clone was made is lost in each by itself.
func TestClonesUndoForThemselves(t *testing.T) {
	m := newMachineWithPool(t)
	size := dm.MinBlockSize.Bytes()
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	write(t, f, 0, 1)
	write(t, f, size, 1)
	must(t, m.pool.CreateSnap(2, 1))
	write(t, f, 0, 2)
	write(t, f, 2*size, 2)
	must(t, f.Discard(size, size))
	for _, machine := range []*machineWithPool{m.clone(), m, m.clone()} {
		machine.powerCut(t, func(int64) bool { return false })
		f := machine.open(t, 1)
		for block, want := range []byte{1, 1, 0} {
			wants(t, f, int64(block)*size, want)
		}
		write(t, f, 3*size, 3)
		write(t, f, 0, 3)
		must(t, f.Sync())
		wants(t, machine.open(t, 2), 0, 1)
		status, err := machine.pool.PoolStatus()
		must(t, err)
		if status.Data.Used != 4 {
			t.Errorf("%d data blocks are in use", status.Data.Used)
		}
	}
}

// tables is all that a machine tells of its devices.
func tables(t *testing.T, k *dmsim.Kernel) (told []string) {
	t.Helper()
	devices, err := dm.List(k, "", "")
	must(t, err)
	for _, listed := range devices {
		d := dm.ByName(k, listed.Name)
		info, err := d.Info()
		must(t, err)
		told = append(told, fmt.Sprintf("%+v", info))
		for _, flags := range []dm.Flags{0, dm.StatusTable, dm.StatusTable | dm.QueryInactive} {
			reply, err := k.Do(dm.Request{Command: dm.TableStatus, Name: listed.Name, Flags: flags | dm.NoFlush})
			must(t, err)
			told = append(told, fmt.Sprintf("%+v", reply.Lines))
		}
	}
	return told
}

func TestCloneHasAllDevices(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	write(t, m.open(t, 1), 0, 1)
	disk := m.NewDisk(1024).Dev()
	below := dm.Linear{Dev: disk, Start: 8}
	for name, target := range map[string]dm.Target{
		"linear": below, "zero": dm.Zero{}, "error": dm.ErrorTarget{},
		"well": dmtest.Well(below), "ill": dmtest.Ill(below, dmtest.DropWrites),
	} {
		_, err := dm.Activate(m, name, "uuid-"+name, dm.Whole(512, target))
		must(t, err)
	}
	bare, err := dm.Create(m, "bare", "")
	must(t, err)
	must(t, bare.Load(dm.Whole(8, below)))
	must(t, dm.ByName(m, "linear").Suspend(0))
	must(t, dm.ByName(m, "thin-1").RemoveDeferred())
	must(t, dm.ByName(m, "zero").Remove()) // leaves a minor number free

	c := m.clone()
	have, want := tables(t, c.Kernel), tables(t, m.Kernel)
	if !reflect.DeepEqual(have, want) {
		t.Errorf("the clone tells\n%q\nwant\n%q", have, want)
	}
	must(t, dm.ByName(c, "linear").Resume())
	must(t, dm.ByName(c, "bare").Resume())
	if now := tables(t, m.Kernel); !reflect.DeepEqual(now, want) {
		t.Errorf("the machine tells\n%q\nwant\n%q", now, want)
	}
	if _, err := c.OpenExclusive(disk); !errors.Is(err, unix.EBUSY) {
		t.Errorf("open of a disk with tables: error is %v", err)
	}
}

// Files that are open in the machine are closed in the clone when its process
// dies; in the machine they stay.
func TestCloneHasOpenFiles(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 1)
	must(t, dm.ByName(m, "thin-1").RemoveDeferred())
	state, err := m.OpenExclusive(m.NewDisk(8).Dev())
	must(t, err)
	c := m.clone()
	c.CloseAll()
	if _, err := dm.ByName(c, "thin-1").Info(); !errors.Is(err, unix.ENXIO) {
		t.Errorf("in the clone: error is %v", err)
	}
	write(t, f, 0, 1)
	write(t, state, 0, 1)
	again, err := c.OpenExclusive(dm.MakeDevNo(dmsim.DiskMajor, 2))
	must(t, err)
	wants(t, again, 0, 0)
}

func TestClonesRunAtOnce(t *testing.T) {
	m := newMachineWithPool(t)
	must(t, m.pool.CreateThin(1))
	write(t, m.open(t, 1), 0, 1)
	var clones sync.WaitGroup
	for range 8 {
		c := m.clone()
		clones.Go(func() {
			f := c.reopen(t, 1)
			write(t, f, 0, 2)
			must(t, c.pool.CreateSnap(2, 1))
			write(t, f, 0, 3)
			wants(t, c.open(t, 2), 0, 2)
		})
	}
	write(t, m.reopen(t, 1), 0, 4)
	clones.Wait()
	wants(t, m.reopen(t, 1), 0, 4)
}

func BenchmarkClone(b *testing.B) {
	m := dmsim.New()
	meta, data := m.NewDisk(4096), m.NewDisk(1024*dm.MinBlockSize)
	device, err := dm.Activate(m, "pool", "", dm.Whole(1024*dm.MinBlockSize, dm.ThinPool{
		Metadata: meta.Dev(), Data: data.Dev(), BlockSize: dm.MinBlockSize, SkipBlockZeroing: true,
	}))
	if err != nil {
		b.Fatal(err)
	}
	pool := dm.Pool{Device: device}
	info, err := pool.Info()
	if err != nil {
		b.Fatal(err)
	}
	for id := range dm.DeviceID(5) {
		err := pool.CreateThin(id)
		if err != nil {
			b.Fatal(err)
		}
		thin, err := dm.Activate(m, fmt.Sprint("thin-", id), "", dm.Whole(poolSize, dm.Thin{Pool: info.Dev, ID: id}))
		if err != nil {
			b.Fatal(err)
		}
		of, err := thin.Info()
		if err != nil {
			b.Fatal(err)
		}
		f, err := m.Open(of.Dev)
		if err != nil {
			b.Fatal(err)
		}
		for page := range int64(20) {
			if _, err := f.WriteAt(make([]byte, 4096), page*dm.MinBlockSize.Bytes()/2); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		m.Clone()
	}
}
