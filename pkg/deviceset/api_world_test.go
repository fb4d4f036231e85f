package deviceset_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A flawed machine is a simulated one of which a tool or a call fails when it is
// told to, and which remembers what it was asked.
type flawed struct {
	*simulated.Machine

	mu       sync.Mutex
	mountErr error
	makeErr  error
	growErr  error
	grownAt  []string // the mount points at which a file system grew
	options  []string // of the last mount
	uid, gid int      // of the root
	madeRoot bool
}

func (m *flawed) MakeRoot(root string, uid, gid int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.madeRoot, m.uid, m.gid = true, uid, gid
	return m.Machine.MakeRoot(root, uid, gid)
}

func (m *flawed) Mount(i dm.Info, path string, t filesystem.Type, o filesystem.MountOptions) error {
	m.mu.Lock()
	err := m.mountErr
	m.options = o.Options
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.Machine.Mount(i, path, t, o)
}

func (m *flawed) GrowFS(ctx context.Context, i dm.Info, path string, t filesystem.Type) error {
	m.mu.Lock()
	err := m.growErr
	m.grownAt = append(m.grownAt, path)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.Machine.GrowFS(ctx, i, path, t)
}

func (m *flawed) breakMount(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mountErr = err
}

func (m *flawed) Make(ctx context.Context, i dm.Info, t filesystem.Type, o filesystem.MakeOptions) error {
	m.mu.Lock()
	err := m.makeErr
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.Machine.Make(ctx, i, t, o)
}

func (m *flawed) breakMake(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.makeErr = err
}

func (m *flawed) breakGrowth(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.growErr = err
}

// live begins a process with options beside those of the tiny pool. It has no
// worker.
func live(t testing.TB, w *simulated.World, options ...string) *life {
	t.Helper()
	l, _ := liveOn(t, w, options...)
	return l
}

func liveOn(t testing.TB, w *simulated.World, options ...string) (*life, *flawed) {
	t.Helper()
	m := &flawed{Machine: w.Process(nil)}
	l := &life{ground: simulatedGround{w}, world: w, machine: m.Machine, acked: model{}}
	var err error
	l.set, err = deviceset.OpenQuiet(m, root, label, slices.Concat(poolOptions, options)...)
	must(t, err)
	return l, m
}

// working begins a process with a worker, which ends with the test.
func working(t testing.TB, w *simulated.World, options ...string) *life {
	t.Helper()
	l := &life{ground: simulatedGround{w}, world: w, machine: w.Process(nil), acked: model{}}
	var err error
	l.set, err = deviceset.Open(l.machine, root, true, slices.Concat(poolOptions, options), nil, nil)
	must(t, err)
	t.Cleanup(func() {
		l.closePod()
		must(t, l.set.Shutdown(root))
	})
	return l
}

var (
	blank1M = map[string]string{"fs": "none", "size": "1M"}
	blank2M = map[string]string{"fs": "none", "size": "2M"}
	onExt4  = map[string]string{"fs": "ext4"}
)

// refuses fails unless err has the cause.
func refuses(t testing.TB, err, cause error) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Fatalf("error is %v, want %v", err, cause)
	}
}

func equals(t testing.TB, what string, have, want any) {
	t.Helper()
	if !reflect.DeepEqual(have, want) {
		t.Fatalf("%s: have %v, want %v", what, have, want)
	}
}

// comesTrue waits for what somebody else does.
func comesTrue(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// unchanged fails if do changes what any disk holds for good.
func (l *life) unchanged(t testing.TB, do func()) {
	t.Helper()
	before := l.world.Kernel().Digest()
	do()
	if l.world.Kernel().Digest() != before {
		t.Fatal("something was changed")
	}
}

// isActive reports whether a device is active.
func (l *life) isActive(t testing.TB, name string) bool {
	t.Helper()
	d, err := l.set.Device(name)
	must(t, err)
	return slices.ContainsFunc(l.devices(t), func(uuid string) bool { return strings.HasSuffix(uuid, fmt.Sprintf("-%d", d.ID)) })
}

// devices returns the UUIDs of all dm devices of ours.
func (l *life) devices(t testing.TB) (uuids []string) {
	t.Helper()
	devices, err := dm.List(l.world.Kernel(), "", "CSI-DMTHIN-")
	must(t, err)
	for _, d := range devices {
		uuids = append(uuids, d.UUID)
	}
	return uuids
}

// pool returns the pool, past the set.
func (l *life) pool() dm.Pool {
	return dm.Pool{Device: dm.ByName(l.world.Kernel(), l.set.Status().PoolName)}
}

// poolTable returns the pool's live table.
func (l *life) poolTable(t testing.TB) (dm.Sectors, dm.ThinPool) {
	t.Helper()
	table, err := l.pool().Table()
	must(t, err)
	return table.Length(), table[0].Target.(dm.ThinPool)
}

// fillBlocks activates a device and writes blocks from the at-th on, until an error.
func (l *life) fillBlocks(t testing.TB, name string, at, n int64) error {
	t.Helper()
	_, err := l.set.ActivateDevice(name)
	must(t, err)
	f, err := l.file(name)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	for i := at; i < at+n; i++ {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, blockSize), i*blockSize); err != nil {
			return err
		}
	}
	return f.Sync()
}

// writesBlocks is fillBlocks, and leaves the device inactive.
func (l *life) writesBlocks(t testing.TB, name string, at, n int64) {
	t.Helper()
	must(t, l.fillBlocks(t, name, at, n))
	must(t, l.set.DeactivateDevice(name))
}

// fillPool writes to a large new device until the pool is full.
func (l *life) fillPool(t testing.TB, name string) {
	t.Helper()
	must(t, l.set.AddDevice(name, "", map[string]string{"fs": "none", "size": "1G"}))
	if err := l.fillBlocks(t, name, 0, 1<<13); err == nil {
		t.Fatal("the pool is not full")
	}
	equals(t, "mode", l.set.Status().Mode, "out_of_data_space")
}

// writeDisk writes a page of a disk durably.
func writeDisk(t testing.TB, w *simulated.World, path string, at int64, page []byte) {
	t.Helper()
	f, err := w.Kernel().Open(w.DiskAt(path).Dev())
	must(t, err)
	_, err = f.WriteAt(page, at)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func readDisk(t testing.TB, w *simulated.World, path string, at, n int64) []byte {
	t.Helper()
	f, err := w.Kernel().Open(w.DiskAt(path).Dev())
	must(t, err)
	b := make([]byte, n)
	_, err = f.ReadAt(b, at)
	must(t, err)
	must(t, f.Close())
	return b
}

// rebooted ends all processes and the kernel, orderly as far as disks go.
func rebooted(w *simulated.World) { w.PowerCut(func(dmsim.Page) bool { return true }) }

// existingPool makes a pool of somebody else's on two more disks.
func existingPool(t testing.TB, w *simulated.World, name string) dm.Pool {
	t.Helper()
	if w.DiskAt("/dev/their-data") == nil {
		w.NewDisk("/dev/their-data", dataSize)
		w.NewDisk("/dev/their-metadata", metaSize)
	}
	d, err := dm.Activate(w.Kernel(), name, "", dm.Whole(dm.SectorsIn(dataSize), dm.ThinPool{
		Metadata: w.DiskAt("/dev/their-metadata").Dev(), Data: w.DiskAt("/dev/their-data").Dev(), BlockSize: 128, ErrorIfNoSpace: true,
	}))
	must(t, err)
	return dm.Pool{Device: d}
}

var existingOptions = []string{"dm.thinpooldev=theirs", "dm.overprovision_ratio=0", "dm.basesize=1M"}

var loopOptions = []string{"dm.loopdatasize=16M", "dm.loopmetadatasize=4M", "dm.overprovision_ratio=0", "dm.basesize=1M"}

// beginWith begins a process without a worker, with exactly these options.
func beginWith(w *simulated.World, options ...string) (*life, error) {
	l := &life{ground: simulatedGround{w}, world: w, machine: w.Process(nil), acked: model{}}
	var err error
	l.set, err = deviceset.OpenQuiet(l.machine, root, label, options...)
	return l, err
}
