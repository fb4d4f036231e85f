package deviceset_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// These tests go through the API, symbol by symbol. What crashes do to it is the
// torture's matter.

func TestOpen(t *testing.T) {
	t.Run("without doInit and a pool, it touches nothing", func(t *testing.T) {
		for _, options := range [][]string{poolOptions, loopOptions} {
			w := newWorld()
			m := &flawed{Machine: w.Process(nil)}
			before := w.Kernel().Digest()
			_, err := deviceset.Open(m, root, false, options, nil, nil)
			refuses(t, err, deviceset.ErrNoPool)
			equals(t, "changed", w.Kernel().Digest() != before || m.madeRoot, false)
			equals(t, "files", []bool{w.DiskAt(root+"/state.0") == nil, w.DiskAt(root+"/devicemapper/data") == nil}, []bool{true, true})
		}
	})
	t.Run("without doInit, a pool that is there is opened", func(t *testing.T) {
		w, _ := prepared(t)
		set, err := deviceset.Open(w.Process(nil), root, false, poolOptions, nil, nil)
		must(t, err)
		equals(t, "list", set.List(), []string{"a", "b", "c"})
		must(t, set.Shutdown(root))
	})
	t.Run("the second time, everything is as it was", func(t *testing.T) {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		uuid, before := l.set.PoolUUID(), describeAll(l.set)
		for _, end := range []func(){
			func() { must(t, l.set.Shutdown(root)) }, w.Kill, func() { rebooted(w) },
		} {
			end()
			l, err = begin(w, acked)
			must(t, err)
			equals(t, "uuid", l.set.PoolUUID(), uuid)
			equals(t, "devices", describeAll(l.set), before)
		}
	})
	t.Run("the directories belong to the root of the id maps", func(t *testing.T) {
		for _, test := range []struct {
			maps []deviceset.IDMap
			uid  int
			err  error
		}{
			{nil, 0, nil},
			{[]deviceset.IDMap{{0, 100000, 65536}}, 100000, nil},
			{[]deviceset.IDMap{{1, 5, 1}, {0, 7, 1}}, 7, nil},
			{[]deviceset.IDMap{{1, 5, 100}}, 0, deviceset.ErrInvalid},
			{[]deviceset.IDMap{{0, 5, 0}}, 0, deviceset.ErrInvalid},
		} {
			for _, gidsToo := range []bool{false, true} {
				m := &flawed{Machine: newWorld().Process(nil)}
				gids := []deviceset.IDMap(nil)
				if gidsToo {
					gids = test.maps
				}
				set, err := deviceset.Open(m, root, true, poolOptions, test.maps, gids)
				refuses(t, err, test.err)
				if err == nil {
					must(t, set.Shutdown(root))
				}
				equals(t, "uid", []any{m.uid, m.madeRoot}, []any{test.uid, test.err == nil})
				equals(t, "gid", m.gid != 0, gidsToo && test.uid != 0)
			}
		}
	})
	t.Run("options of another kind of pool are refused", func(t *testing.T) {
		w, _ := prepared(t)
		before := w.Kernel().Digest()
		_, err := beginWith(w, loopOptions...)
		refuses(t, err, deviceset.ErrInvalid)
		equals(t, "changed", w.Kernel().Digest() != before, false)
	})
	t.Run("a wrong option is named, and touches nothing", func(t *testing.T) {
		w := newWorld()
		before := w.Kernel().Digest()
		_, err := beginWith(w, append(slices.Clone(poolOptions), "dm.blocksiz=64k")...)
		refuses(t, err, deviceset.ErrInvalid)
		equals(t, "named", strings.Contains(err.Error(), "dm.blocksiz"), true)
		equals(t, "changed", w.Kernel().Digest() != before, false)
	})
}

// describeAll returns all devices of a set as text.
func describeAll(s *deviceset.DeviceSet) (all []string) {
	devices, _ := s.Devices("", 1000)
	for _, d := range devices {
		all = append(all, fmt.Sprintf("%+v", d))
	}
	return all
}

func TestDiskPaths(t *testing.T) {
	w := newWorld()
	theirs := existingPool(t, w, "theirs")
	data, metadata := root+"/devicemapper/data", root+"/devicemapper/metadata"
	for _, test := range []struct {
		options []string
		paths   []string
		files   []string
	}{
		{poolOptions, []string{dataPath, metaPath}, []string{"", ""}},
		{loopOptions, []string{data, metadata}, []string{data, metadata}}, // a simulated file is its own loop device
		{existingOptions, []string{"", ""}, []string{"", ""}},
	} {
		w := w.Clone()
		for range 2 {
			l, err := beginWith(w, test.options...)
			must(t, err)
			st := l.set.Status()
			equals(t, "paths", []string{l.set.DataDevicePath(), l.set.MetadataDevicePath()}, test.paths)
			equals(t, "status", []string{st.DataFile, st.MetadataFile, st.DataLoopback, st.MetadataLoopback}, slices.Concat(test.paths, test.files))
			must(t, l.set.Shutdown(root))
		}
	}
	must(t, theirs.Remove())
}

func TestResizePool(t *testing.T) {
	for _, kind := range []string{"disks", "files"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld()
			options := poolOptions
			if kind == "files" {
				options = loopOptions
			}
			l, err := beginWith(w, options...)
			must(t, err)
			before := l.set.Status()
			refuses(t, l.set.ResizePool(dataSize-mib), deviceset.ErrTooSmall)
			must(t, l.set.ResizePool(dataSize))
			equals(t, "total", l.set.Status().Data.Total, before.Data.Total)
			if kind == "files" {
				must(t, l.set.ResizePool(dataSize+1)) // no whole block more
				equals(t, "total", l.set.Status().Data.Total, before.Data.Total)
			} else {
				equals(t, "total", l.set.Status().Metadata.Total, before.Metadata.Total)
				refuses(t, l.set.ResizePool(2*dataSize), deviceset.ErrInvalid) // the disk is not as large
				w.DiskAt(dataPath).Grow(dm.SectorsIn(2 * dataSize))
				w.DiskAt(metaPath).Grow(dm.SectorsIn(2 * metaSize))
			}
			must(t, l.set.ResizePool(2*dataSize))
			check := func() {
				t.Helper()
				after := l.set.Status()
				equals(t, "data", after.Data.Total, uint64(2*dataSize))
				equals(t, "more metadata, some held back", after.Metadata.Total > before.Metadata.Total && after.MetadataHeldBack > 0, true)
				status, err := l.pool().PoolStatus()
				must(t, err)
				equals(t, "the kernel's", status.Data.Total*blockSize, uint64(2*dataSize))
			}
			check()
			must(t, l.set.Shutdown(root))
			l, err = beginWith(w, options...)
			must(t, err)
			check()
			refuses(t, l.set.ResizePool(dataSize), deviceset.ErrTooSmall)
		})
	}
}

func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld()
	m := w.Process(nil)
	set, err := deviceset.Open(m, root, true, poolOptions, nil, nil)
	must(t, err)
	l := &life{ground: simulatedGround{w}, world: w, machine: m, set: set}
	must(t, set.AddDevice("a", "", onExt4))
	must(t, set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	must(t, l.open("a"))
	for range 3 {
		must(t, set.Shutdown(root))
	}
	comesTrue(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	for range set.Events() { // which have ended
	}

	// What is mounted goes on.
	_, err = l.pod.WriteAt(bytes.Repeat([]byte{9}, 4096), 8192)
	must(t, err)
	must(t, l.pod.Sync())
	there, mounted, err := m.MountedAt("/mnt")
	must(t, err)
	equals(t, "mounted", []bool{mounted, there.ReadOnly}, []bool{true, false})
	equals(t, "list", set.List(), []string{"a"})
	for what, err := range map[string]error{
		"add": set.AddDevice("x", "", blank1M), "delete": set.DeleteDevice("a", false),
		"mount":   set.MountDevice("a", "/mnt", deviceset.MountOpts{}),
		"unmount": set.UnmountDevice("a", "/mnt"),
		"grow":    set.GrowDevice("a", 2*mib), "resize": set.ResizePool(2 * dataSize),
		"label": set.SetLabels("a", nil), "format": set.FormatDevice("a", filesystem.Ext4, nil),
		"adopt": set.AdoptDevice(7, "x", 0),
	} {
		if !errors.Is(err, deviceset.ErrShutDown) {
			t.Errorf("%s: error is %v", what, err)
		}
	}

	// And is found.
	l.closePod()
	l = live(t, w)
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	must(t, l.set.UnmountDevice("a", "/mnt"))
	must(t, l.set.Shutdown(root))
	equals(t, "devices", l.devices(t), []string(nil))
}

// A set that was given up has let go of everything: the next one opens.
func TestOpenAfterAFailedOpen(t *testing.T) {
	w, acked := prepared(t)
	_, err := beginWith(w, append(slices.Clone(poolOptions), "dm.basesize=512k")...)
	must(t, err) // there is no base yet
	w.Kill()
	l, err := begin(w, acked)
	must(t, err)
	must(t, l.set.AddDevice("x", "", onExt4))
	must(t, l.set.Shutdown(root))
	_, err = beginWith(w, append(slices.Clone(poolOptions), "dm.basesize=512k")...)
	refuses(t, err, deviceset.ErrTooSmall)
	equals(t, "devices", l.devices(t), []string(nil))
	_, err = begin(w, acked)
	must(t, err)
}

// changing are all verbs that change something, on the devices of prepared.
func changing(s *deviceset.DeviceSet) map[string]error {
	return map[string]error{
		"create":   s.AddDevice("x", "", blank1M),
		"snapshot": s.AddDevice("x", "a", nil),
		"delete":   s.DeleteDevice("b", false),
		"grow":     s.GrowDevice("a", 2*mib),
		"label":    s.SetLabels("a", map[string]string{"k": "v"}),
		"format":   s.FormatDevice("b", filesystem.Ext4, nil),
	}
}

// A root without room, or read-only, refuses changes before the pool hears of them,
// and takes them again when it has.
func TestFullRoot(t *testing.T) {
	for _, cause := range []error{unix.ENOSPC, unix.EROFS, unix.EDQUOT} {
		for _, when := range []string{"before the start", "after it"} {
			w, acked := prepared(t)
			if when == "before the start" {
				w.RefuseWrites(cause)
			}
			l, err := begin(w, acked)
			must(t, err)
			w.RefuseWrites(cause)
			before, digest := l.thinIDs(t), w.Kernel().Digest()
			for what, err := range changing(l.set) {
				if !errors.Is(err, deviceset.ErrUnavailable) || !errors.Is(err, cause) {
					t.Errorf("%s, %s: error is %v", when, what, err)
				}
			}
			equals(t, "thins", l.thinIDs(t), before)
			if when == "after it" { // else the label was written, and awaits the root
				equals(t, "changed", w.Kernel().Digest() != digest, false)
			}
			content, err := l.contentOf("a") // what is there is served
			must(t, err)
			equals(t, "content", content, byte(1))
			w.RefuseWrites(nil)
			for _, err := range changing(l.set) {
				if err != nil && !errors.Is(err, deviceset.ErrExists) && !errors.Is(err, deviceset.ErrNotFound) {
					t.Errorf("%s, with room again: %v", when, err)
				}
			}
			must(t, l.checkPool())
		}
	}
}

// After an error of a sync nobody knows what is on the medium: the journal is closed
// until it is read anew.
func TestPoisonedJournal(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	fail := func(fails bool) {
		for _, path := range simulated.SlotPaths(root) {
			w.DiskAt(path).Fail(false, fails)
		}
	}
	fail(true)
	refuses(t, l.set.AddDevice("x", "", blank1M), deviceset.ErrUnavailable)
	fail(false)
	before := l.thinIDs(t)
	for what, err := range changing(l.set) {
		if !errors.Is(err, deviceset.ErrUnavailable) {
			t.Errorf("%s: error is %v", what, err)
		}
	}
	equals(t, "thins", l.thinIDs(t), before)
	equals(t, "list", l.set.List(), []string{"a", "b", "c"})
	content, err := l.contentOf("a")
	must(t, err)
	equals(t, "content", content, byte(1))

	must(t, l.set.Shutdown(root))
	l, err = begin(w, acked)
	must(t, err)
	must(t, l.set.AddDevice("x", "", blank1M))
	must(t, l.checkPool())
}

// A pool that somebody else made is taken if it is new, and never reloaded, resized or
// removed.
func TestExistingPool(t *testing.T) {
	w := newWorld()
	pool := existingPool(t, w, "theirs")
	info, err := pool.Info()
	must(t, err)
	table, err := pool.Table()
	must(t, err)
	l, err := beginWith(w, existingOptions...)
	must(t, err)
	equals(t, "name", l.set.Status().PoolName, "theirs")
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.write("a", 1))
	must(t, l.set.DeactivateDevice("a"))
	l.unchanged(t, func() { refuses(t, l.set.ResizePool(2*dataSize), deviceset.ErrForeign) })
	for range 2 {
		must(t, l.set.Shutdown(root))
		after, err := pool.Table()
		must(t, err)
		equals(t, "table", after, table)
		l, err = beginWith(w, existingOptions...)
		must(t, err)
		content, err := l.contentOf("a")
		must(t, err)
		equals(t, "content", content, byte(1))
	}
	now, err := pool.Info()
	must(t, err)
	equals(t, "table swaps", now.EventNr, info.EventNr) // each resume is an event

	// Not activated yet, after a boot, it is no pool.
	rebooted(w)
	_, err = beginWith(w, existingOptions...)
	refuses(t, err, deviceset.ErrInvalid)
	w.Kill()
	existingPool(t, w, "theirs")
	l, err = beginWith(w, existingOptions...)
	must(t, err)
	equals(t, "list", l.set.List(), []string{"a"})

	for what, use := range map[string]func(dm.Pool) error{
		"a thin device":    func(p dm.Pool) error { return p.CreateThin(5) },
		"a transaction id": func(p dm.Pool) error { return p.SetTransactionID(0, 1) },
	} {
		w := newWorld()
		must(t, use(existingPool(t, w, "theirs")))
		before := w.Kernel().Digest()
		if _, err := beginWith(w, existingOptions...); !errors.Is(err, deviceset.ErrForeign) {
			t.Errorf("%s: error is %v", what, err)
		}
		equals(t, "changed", w.Kernel().Digest() != before, false)
	}
}

// thin_restore and thin_repair make metadata that takes all of its device, of which a
// part was held back.
func TestRestoredMetadata(t *testing.T) {
	w, acked := prepared(t)
	disk := w.DiskAt(metaPath)
	linear, err := dm.Activate(w.Kernel(), "linear", "", dm.Whole(dm.SectorsIn(metaSize), dm.Linear{Dev: disk.Dev()}))
	must(t, err)
	info, err := linear.Info()
	must(t, err)
	pool, err := dm.Activate(w.Kernel(), "pool", "", dm.Whole(dm.SectorsIn(dataSize), dm.ThinPool{
		Metadata: info.Dev, Data: w.DiskAt(dataPath).Dev(), BlockSize: dm.SectorsIn(blockSize),
	}))
	must(t, err)
	must(t, errors.Join(pool.Remove(), linear.Remove()))

	for range 2 {
		l, err := begin(w, acked)
		must(t, err)
		st := l.set.Status()
		equals(t, "metadata, held back", []uint64{st.Metadata.Total, st.MetadataHeldBack}, []uint64{uint64(metaSize), 0})
		must(t, l.set.ResizePool(dataSize))
		must(t, l.checkAlive())
		must(t, l.set.Shutdown(root))
	}
	disk.Grow(dm.SectorsIn(2 * metaSize))
	l, err := begin(w, acked)
	must(t, err)
	must(t, l.set.ResizePool(dataSize))
	st := l.set.Status()
	equals(t, "it grew", st.Metadata.Total+st.MetadataHeldBack, uint64(2*metaSize))
	equals(t, "and is held back in part", st.Metadata.Total > uint64(metaSize) && st.MetadataHeldBack > 0, true)
}

// A copy on a smaller disk is no pool, and says why.
func TestSmallerDisks(t *testing.T) {
	for _, path := range []string{dataPath, metaPath} {
		w, acked := prepared(t)
		w.NewDisk("/dev/smaller", w.DiskAt(path).Size().Bytes()-mib)
		w.DiskAt("/dev/smaller").Restore(w.DiskAt(path))
		var options []string
		for _, o := range poolOptions {
			options = append(options, strings.ReplaceAll(o, path, "/dev/smaller"))
		}
		l, err := beginWith(w, options...)
		must(t, err)
		status := l.set.Status()
		if !strings.Contains(status.ReadOnly, "must not shrink") {
			t.Errorf("%s: it says %q", path, status.ReadOnly)
		}
		refuses(t, l.set.AddDevice("x", "", blank1M), deviceset.ErrUnavailable)
		w.Kill()
		_, err = begin(w, acked)
		must(t, err)
	}
}

// The kernel formats metadata that begins with zeros. It is never asked to.
func TestLostMetadata(t *testing.T) {
	w, acked := prepared(t)
	kept := readDisk(t, w, metaPath, 0, 4096)
	writeDisk(t, w, metaPath, 0, make([]byte, 4096))
	before := w.Kernel().Digest()
	for range 2 {
		_, err := begin(w, acked)
		refuses(t, err, deviceset.ErrLostMetadata)
		_, err = beginWith(w, append(slices.Clone(poolOptions), "dm.force=true")...)
		refuses(t, err, deviceset.ErrLostMetadata)
		if _, err := deviceset.AdoptOn(w.Process(nil), root, poolOptions, true); err == nil {
			t.Error("it was adopted")
		}
		w.Kill()
		rebooted(w)
		equals(t, "zeros", bytes.Equal(readDisk(t, w, metaPath, 0, 4096), make([]byte, 4096)), true)
		equals(t, "changed", w.Kernel().Digest() != before, false)
	}
	equals(t, "it had something", bytes.Equal(kept, make([]byte, 4096)), false)
}

// fenced returns a world whose pool somebody else has changed.
func fenced(t *testing.T) *simulated.World {
	t.Helper()
	w, _ := prepared(t)
	l, _ := openWatched(t, w)
	must(t, l.set.AddDevice("x", "", onExt4))
	status, err := l.pool().PoolStatus()
	must(t, err)
	must(t, l.pool().SetTransactionID(status.TransactionID, status.TransactionID+5))
	w.Kill()
	return w
}

// A set that may change nothing does not grow the pool, and opens though the options
// ask for a larger base device.
func TestFenced(t *testing.T) {
	w := fenced(t)
	l, err := begin(w.Clone(), model{})
	must(t, err)
	equals(t, "read-only", l.set.Status().ReadOnly != "", true)
	l.world.DiskAt(dataPath).Grow(dm.SectorsIn(2 * dataSize))
	before := l.set.Status().Data.Total
	refuses(t, l.set.ResizePool(2*dataSize), deviceset.ErrReadOnly)
	equals(t, "blocks", l.set.Status().Data.Total, before)

	l = live(t, w, "dm.basesize=2M")
	warned := slices.ContainsFunc(l.set.Status().Warnings, func(text string) bool { return strings.Contains(text, "@base-ext4 stays") })
	equals(t, "warned", warned, true)
	base, err := l.set.Device("")
	must(t, err)
	equals(t, "base", base.Size, int64(mib))
}

// Shutdown does not wait for a large device to be given back piece by piece, and the
// next start goes on with that.
func TestShutdownInTheMidstOfADelete(t *testing.T) {
	w := newWorld()
	m := &watched{Machine: w.Process(nil)}
	set, err := deviceset.Open(m, root, true, append(slices.Clone(poolOptions), "dm.blkdiscard=true"), nil, nil)
	must(t, err)
	l := &life{ground: simulatedGround{w}, world: w, machine: m.Machine, set: set}
	must(t, set.AddDevice("a", "", blank1M))
	for _, block := range []int64{0, 2, 4} {
		l.writesBlocks(t, "a", block, 1)
	}
	discards, shut := 0, make(chan error, 1)
	m.watch(func(m *watched) {
		m.discard = func() {
			if discards++; discards == 1 {
				go func() { shut <- set.Shutdown(root) }()
				comesTrue(t, "the end to begin", func() bool { return errors.Is(set.SetLabels("x", nil), deviceset.ErrShutDown) })
			}
		}
	})
	refuses(t, set.DeleteDevice("a", true), deviceset.ErrShutDown)
	must(t, <-shut)
	equals(t, "discards", discards, 1)

	l, err = begin(w, model{})
	must(t, err)
	equals(t, "list and pending", []any{len(l.set.List()), l.set.Status().DeferredDeletedDeviceCount}, []any{0, uint(1)})
	l.set.Finish()
	equals(t, "pending", l.set.Status().DeferredDeletedDeviceCount, uint(0))
	must(t, l.checkPool())
}
