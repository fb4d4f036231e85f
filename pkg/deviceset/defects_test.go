package deviceset_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

// defects are what the devicemapper graph driver did wrong, each with a test that
// fails where we do it too. Those without a test need a kernel: TestKernelDefects
// has them, by the same name.
//
// Three of them were the layer's above: a second Get passed over what it was asked
// for, a first Get was read-only and could not make its directories, and each layer
// had a file "id". That layer is not here yet; what is here is that a DeviceSet
// gives it no cause.
var defects = []struct {
	name string
	test func(*testing.T)
}{
	{"growfs failure leaks the device", growfsFailure},
	{"ResizePool is unusable after init", resizeAfterInit},
	{"a failed ResizePool leaves the pool suspended", resizeFails},
	{"a mount option makes ext4 be mounted with nouuid", nil},
	{"MountDevice succeeds on a foreign mount", foreignMount},
	{"the options of the first mount win", firstMountWins},
	{"GetDeviceStatus activates the device", statusActivates},
	{"rollback leaks a device that is busy", rollbackOfBusy},
	{"rollback leaves the name taken", rollbackOfName},
	{"the deletion worker is not started on the first run", workerOnFirstRun},
	{"a device called base collides with the base device", baseByName},
	{"names are used as paths", namesAsPaths},
	{"the base size is saved before its file system grows", baseGrowthForgotten},
	{"a thin device that is gone cannot be deleted", deleteOfGone},
	{"one corrupt file blocks the start", corruptFile},
	{"no directory is synced", nil},
	{"two sets in one process share their options", sharedOptions},
	{"the block size is not validated", blockSizeChecked},
	{"dm.metadata_size has no effect and devicemapper.size is refused", deadOptions},
	{"direct-lvm is mandatory", onlyLVM},
	{"setting up a pool cannot be resumed, and its checks fail open", setUp},
	{"a deferred removal cannot be cancelled", cancelRemoval},
	{"Shutdown leaks the worker", workerLeak},
	{"file systems grow in one shared directory", sharedDirectory},
	{"a read-only first mount fails", readOnlyFirst},
	{"skip_block_zeroing is on", zeroing},
	{"the low-water mark is a constant, and its event unheard", lowWater},
	{"activation trusts an existing dm device", strangersTable},
	{"a failed mount leaves the device active", failedMount},
	{"a failed pool is divided by zero", failedPool},
	{"two processes have one root", twoProcesses},
}

func TestDefects(t *testing.T) {
	for _, d := range defects {
		if d.test == nil {
			if kernelDefects[d.name] == nil {
				t.Errorf("%s: no test, here or on the kernel", d.name)
			}
			continue
		}
		t.Run(d.name, d.test)
	}
}

// The device was made, its file system did not grow, and its name was taken for ever.
// Here nothing grows before it is mounted, and every mount tries.
func growfsFailure(t *testing.T) {
	l, m := liveOn(t, newWorld())
	must(t, l.set.AddDevice("a", "", onExt4))
	larger := map[string]string{"size": "100M"}
	m.breakGrowth(unix.EIO)
	must(t, l.set.AddDevice("b", "a", larger))
	refuses(t, l.set.MountDevice("b", "/mnt", deviceset.MountOpts{}), unix.EIO)
	equals(t, "active", l.isActive(t, "b"), false)
	must(t, l.set.AddDevice("b", "a", larger))
	must(t, l.set.DeleteDevice("b", true))
	must(t, l.checkPool())

	must(t, l.set.AddDevice("b", "a", larger))
	refuses(t, l.set.MountDevice("b", "/mnt", deviceset.MountOpts{}), unix.EIO)
	m.breakGrowth(nil)
	must(t, l.set.MountDevice("b", "/mnt", deviceset.MountOpts{}))
	equals(t, "size of the file system", l.fileSystem(t, "b"), 100*mib)
}

// fileSystem returns how large the file system of an active device is.
func (l *life) fileSystem(t *testing.T, name string) int64 {
	t.Helper()
	info, err := l.info(name)
	must(t, err)
	found, err := l.machine.Probe(info)
	must(t, err)
	return found.Size
}

// The pool's size was looked up by what was no longer there once it was open.
func resizeAfterInit(t *testing.T) {
	for _, test := range []struct {
		kind    string
		options []string
	}{{"disks", poolOptions}, {"files", loopOptions}} {
		t.Run(test.kind, func(t *testing.T) {
			w := newWorld()
			size := int64(dataSize)
			for range 2 { // on the first run, and on the next
				l, err := beginWith(w, test.options...)
				must(t, err)
				for range 2 {
					size += 4 * mib
					w.DiskAt(dataPath).Grow(dm.SectorsIn(size))
					must(t, l.set.ResizePool(size))
					equals(t, "size", int64(l.set.Status().Data.Total), size)
				}
				must(t, l.set.Shutdown(root))
			}
		})
	}
}

// Whichever step of it fails.
func resizeFails(t *testing.T) {
	for _, mode := range []dmfault.Mode{dmfault.ErrorBefore, dmfault.ErrorAfter} {
		for at := 0; ; at++ {
			base, acked := prepared(t)
			l, err := begin(base, acked)
			must(t, err)
			base.DiskAt(dataPath).Grow(dm.SectorsIn(dataSize + 4*mib))
			base.DiskAt(metaPath).Grow(dm.SectorsIn(metaSize + mib))
			plan := &dmfault.Plan{At: at, Mode: mode}
			l.machine.Break(plan)
			err = l.set.ResizePool(dataSize + 4*mib)
			l.machine.Break(nil)
			if plan.Hit() == "" {
				must(t, err)
				break
			}
			err = l.checkDevices()
			if err == nil {
				err = l.write("a", 7)
			}
			if err != nil {
				t.Errorf("%s at step %d, %s: %v", mode, at, plan.Hit(), err)
			}
		}
	}
}

// What was mounted at a path, it did not ask.
func foreignMount(t *testing.T) {
	l := live(t, newWorld())
	must(t, l.set.AddDevice("a", "", onExt4))
	must(t, l.set.AddDevice("b", "", onExt4))
	must(t, l.set.MountDevice("b", "/mnt", deviceset.MountOpts{}))
	refuses(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}), deviceset.ErrForeign)
	refuses(t, l.set.UnmountDevice("a", "/mnt"), deviceset.ErrForeign)
	equals(t, "active", l.isActive(t, "a"), false)
	there, _, err := l.machine.MountedAt("/mnt")
	must(t, err)
	info, err := l.info("b")
	must(t, err)
	equals(t, "mounted", there.Dev, info.Dev)
}

// A second caller who wanted something else was told that he had it. And options of
// one mount replaced those of all mounts.
func firstMountWins(t *testing.T) {
	l, m := liveOn(t, newWorld(), "dm.mountopt=noatime")
	must(t, l.set.AddDevice("a", "", onExt4))
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{Options: []string{"nodev"}}))
	equals(t, "options", strings.Join(m.options, ","), "noatime,nodev")
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	refuses(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{Options: []string{"ro"}}), deviceset.ErrExists)
	must(t, l.set.UnmountDevice("a", "/mnt"))
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{Options: []string{"ro"}}))
	refuses(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}), deviceset.ErrExists)
}

func statusActivates(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	before := l.devices(t)
	for _, name := range []string{"a", "b", "c"} {
		_, err := l.set.GetDeviceStatus(name)
		must(t, err)
	}
	equals(t, "devices", l.devices(t), before)
}

// A delete that a crash interrupts, of a device that is open, is done when it is
// closed, at whatever step it was.
func rollbackOfBusy(t *testing.T) {
	for at := 0; ; at++ {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		must(t, l.open("b"))
		plan := crashAfter(at)
		l.machine.Break(plan)
		err = l.set.DeleteDevice("b", false)
		w.Kill()
		after, err2 := begin(w, acked)
		must(t, err2)
		after.pod = l.pod
		after.set.Finish() // as long as it is open, in vain
		there := after.set.HasDevice("b")
		if there && err == nil || !there && after.set.Status().DeferredDeletedDeviceCount != 1 {
			t.Fatalf("crash after step %d: there: %v, deletions pending: %d, the delete had said: %v", at, there, after.set.Status().DeferredDeletedDeviceCount, err)
		}
		after.closePod()
		if there {
			must(t, after.set.DeleteDevice("b", true))
		}
		after.set.Finish()
		must(t, after.checkPool())
		if plan.Hit() == "" {
			break
		}
	}
}

// A create that was undone left its name in memory.
func rollbackOfName(t *testing.T) {
	for mode := range dmfault.Mode(dmfault.NumModes) {
		for at := 0; ; at++ {
			w, acked := prepared(t)
			l, err := begin(w, acked)
			must(t, err)
			plan := &dmfault.Plan{At: at, Mode: mode}
			l.machine.Break(plan)
			err = l.set.AddDevice("x", "", blank1M)
			if plan.Hit() == "" {
				must(t, err)
				break
			}
			w.Kill()
			l, err = begin(w, acked)
			must(t, err)
			want := blank2M
			if l.set.HasDevice("x") {
				want = blank1M
			}
			if err := errors.Join(l.set.AddDevice("x", "", want), l.checkPool()); err != nil {
				t.Errorf("%s at step %d, %s: %v", mode, at, plan.Hit(), err)
			}
		}
	}
}

// The worker began with the second start: until then nothing that was pending ended.
func workerOnFirstRun(t *testing.T) {
	l := working(t, newWorld())
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.open("a"))
	must(t, l.set.DeleteDevice("a", false))
	equals(t, "deletions pending", l.set.Status().DeferredDeletedDeviceCount, uint(1))
	l.closePod()
	comesTrue(t, "the deletion", func() bool { return l.set.Status().DeferredDeletedDeviceCount == 0 })
}

// The base device was a device called base, and each device a file of its name
// beside files of the set's own.
func baseByName(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	names := []string{"base", "deviceset-metadata", "transaction-metadata", "x.migrated"}
	for _, name := range names {
		must(t, l.set.AddDevice(name, "", onExt4))
	}
	equals(t, "list", l.set.List(), names)
	must(t, l.set.Shutdown(root))
	l = live(t, w)
	equals(t, "list after a restart", l.set.List(), names)
	for _, name := range names {
		must(t, l.set.DeleteDevice(name, true))
	}
	equals(t, "base", l.set.HasDevice(""), true)
	must(t, l.set.AddDevice("a", "", onExt4))

	// And by no name does a caller get at it.
	for _, name := range []string{"", "@base-ext4"} {
		refuses(t, l.set.DeleteDevice(name, true), deviceset.ErrInvalid)
		refuses(t, l.set.AddDevice(name, "", onExt4), deviceset.ErrInvalid)
	}
	equals(t, "base by its own name", l.set.HasDevice("@base-ext4"), false)
	refuses(t, l.set.GrowDevice("@base-ext4", 2*mib), deviceset.ErrNotFound)
}

var badNames = []string{
	"", ".", "..", "../x", "a/b", "/a", ".hidden", "-f", "a b", "a\nb", "a\x00", "ä", "a:b", strings.Repeat("n", 129),
}

func namesAsPaths(t *testing.T) {
	l := live(t, newWorld())
	must(t, l.set.AddDevice("a", "", blank1M))
	l.unchanged(t, func() {
		for _, name := range badNames {
			refuses(t, l.set.AddDevice(name, "", blank1M), deviceset.ErrInvalid)
			refuses(t, l.set.DeleteDevice(name, false), deviceset.ErrInvalid)
			refuses(t, l.set.AdoptDevice(1, name, 0), deviceset.ErrInvalid)
			if name != "" {
				equals(t, name, l.set.HasDevice(name), false)
				refuses(t, l.set.AddDevice("b", name, nil), deviceset.ErrInvalid)
			}
		}
	})
	must(t, l.set.AddDevice(strings.Repeat("n", 128), "", blank1M))
}

// A base whose file system did not grow never did: its size said that it had. Here
// copies are asked for their file system's size, and the base has none of its own.
func baseGrowthForgotten(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("old", "", onExt4))
	must(t, l.set.Shutdown(root))

	l, m := liveOn(t, w, "dm.basesize=100M")
	m.breakGrowth(unix.EIO)
	must(t, l.set.AddDevice("new", "", onExt4))
	refuses(t, l.set.MountDevice("new", "/mnt", deviceset.MountOpts{}), unix.EIO)
	w.Kill()

	l = live(t, w, "dm.basesize=100M")
	must(t, l.set.AddDevice("newer", "", onExt4))
	for _, name := range []string{"new", "newer"} {
		must(t, l.set.MountDevice(name, "/mnt/"+name, deviceset.MountOpts{}))
		equals(t, "file system of "+name, l.fileSystem(t, name), 100*mib)
	}
	must(t, l.set.MountDevice("old", "/mnt/old", deviceset.MountOpts{}))
	equals(t, "file system of old", l.fileSystem(t, "old"), mib)
}

// Somebody deletes a thin device by dmsetup.
func deleteOfGone(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	for _, sync := range []bool{true, false} {
		must(t, l.set.AddDevice("x", "a", nil))
		x, err := l.set.Device("x")
		must(t, err)
		must(t, l.pool().Delete(x.ID))
		must(t, l.set.DeleteDevice("x", sync))
		equals(t, "has", l.set.HasDevice("x"), false)
		must(t, l.checkPool())
	}
	// And so after a start that saw that it was gone.
	b, err := l.set.Device("b")
	must(t, err)
	must(t, l.pool().Delete(b.ID))
	w.Kill()
	l, err = begin(w, acked)
	must(t, err)
	equals(t, "ghosts", l.set.Status().Ghosts, []string{"b"})
	must(t, l.set.DeleteDevice("b", true))
	equals(t, "list, ghosts", [][]string{l.set.List(), l.set.Status().Ghosts}, [][]string{{"a", "c"}, {}})
	must(t, l.set.AddDevice("b", "", blank1M)) // another one of its name
	must(t, l.write("b", 2))
}

// Every block of both files, in turn: the set starts, and all devices are there. Where
// the newest header or the last frame is what was damaged, the root looks like an old
// one, and it takes an adoption.
func corruptFile(t *testing.T) {
	w, acked := prepared(t)
	for _, path := range simulated.SlotPaths(root) {
		for at := int64(0); at < label/2; at += 4096 {
			damaged := w.Clone()
			if !scribble(t, damaged, path, at) {
				continue
			}
			l, err := begin(damaged, acked)
			must(t, err)
			if l.set.Status().ReadOnly != "" {
				rebooted(damaged)
				_, err := deviceset.AdoptOn(damaged.Process(nil), root, poolOptions, true)
				must(t, err)
				damaged.Kill()
				l, err = begin(damaged, acked)
				must(t, err)
			}
			must(t, l.check(doubt{models: []model{acked}}))
		}
	}
}

func sharedOptions(t *testing.T) {
	w := newWorld()
	one := live(t, w, "dm.use_deferred_deletion=false", "dm.basesize=2M")
	other := newWorld()
	two := live(t, other)
	three := live(t, newWorld(), "dm.use_deferred_deletion=false", "dm.use_deferred_removal=false")
	for _, l := range []*life{one, two, three} {
		must(t, l.set.AddDevice("a", "", onExt4))
		must(t, l.open("a"))
	}
	refuses(t, one.set.DeleteDevice("a", false), deviceset.ErrBusy)
	must(t, two.set.DeleteDevice("a", false))
	refuses(t, three.set.DeleteDevice("a", false), deviceset.ErrBusy)
	equals(t, "base sizes", []uint64{one.set.Status().BaseDeviceSize, two.set.Status().BaseDeviceSize}, []uint64{2 << 20, 1 << 20})
	equals(t, "deferred removal", []bool{one.set.Status().DeferredRemoveEnabled, three.set.Status().DeferredRemoveEnabled}, []bool{true, false})
}

func blockSizeChecked(t *testing.T) {
	for _, size := range []string{"0", "32k", "100k", "65k", "2G", "1M1", "-64k"} {
		_, _, err := deviceset.ParseOptions([]string{"dm.blocksize=" + size})
		refuses(t, err, deviceset.ErrInvalid)
	}
	for _, size := range []string{"64k", "192k", "1G"} {
		_, _, err := deviceset.ParseOptions([]string{"dm.blocksize=" + size})
		must(t, err)
	}
}

// An option that is accepted has its effect.
func deadOptions(t *testing.T) {
	_, _, err := deviceset.ParseOptions([]string{"dm.metadata_size=256k"})
	refuses(t, err, deviceset.ErrInvalid)
	c, _, err := deviceset.ParseOptions([]string{"devicemapper.size=20G"})
	must(t, err)
	equals(t, "base size", c.BaseSize, int64(20<<30))
}

func onlyLVM(t *testing.T) {
	w := newWorld()
	existingPool(t, w, "theirs")
	for _, options := range [][]string{poolOptions, loopOptions, existingOptions} {
		l, err := beginWith(w.Clone(), options...)
		must(t, err)
		must(t, l.set.AddDevice("a", "", onExt4))
	}
}

// What is on a disk that cannot be read, nobody knows; and whoever dies while making
// a pool goes on with it.
func setUp(t *testing.T) {
	for _, path := range []string{dataPath, metaPath} {
		w := newWorld()
		w.DiskAt(path).Fail(true, false)
		before := w.Kernel().Digest()
		_, err := begin(w, nil)
		refuses(t, err, unix.EIO)
		equals(t, "changed", w.Kernel().Digest() != before, false)

		w = newWorld()
		writeDisk(t, w, path, 0, bytes.Repeat([]byte("theirs! "), 512))
		before = w.Kernel().Digest()
		_, err = begin(w, nil)
		refuses(t, err, deviceset.ErrForeign)
		equals(t, "changed", w.Kernel().Digest() != before, false)
	}
	whole, err := beginTraced(newWorld(), nil)
	must(t, err)
	for at := range whole.machine.Steps() {
		w := newWorld()
		_, _ = beginTraced(w, crashAfter(at))
		w.Kill()
		l, err := begin(w, nil)
		if err == nil {
			err = errors.Join(l.set.AddDevice("a", "", onExt4), l.checkPool())
		}
		if err != nil {
			t.Errorf("crash after step %d: %v", at, err)
		}
	}
}

// A device that goes when it is closed, and is wanted again before, stays.
func cancelRemoval(t *testing.T) {
	l := live(t, newWorld())
	must(t, l.set.AddDevice("a", "", onExt4))
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	must(t, l.open("a"))
	must(t, l.set.UnmountDevice("a", "/mnt"))
	info, err := l.info("a")
	must(t, err)
	equals(t, "removal deferred", info.RemovalDeferred(), true)
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	must(t, l.set.UnmountDevice("a", "/mnt"))
	_, err = l.set.ActivateDevice("a")
	must(t, err)
	info, err = l.info("a")
	must(t, err)
	equals(t, "removal deferred", info.RemovalDeferred(), false)
	l.closePod()
	equals(t, "active", l.isActive(t, "a"), true)
}

func workerLeak(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld()
	for range 10 {
		set, err := deviceset.Open(w.Process(nil), root, true, poolOptions, nil, nil)
		must(t, err)
		must(t, set.Shutdown(root))
	}
	comesTrue(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

// Two that grow at once do not meet.
func sharedDirectory(t *testing.T) {
	l, m := liveOn(t, newWorld())
	must(t, l.set.AddDevice("a", "", onExt4))
	var want []string
	var all sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprint("b", i)
		must(t, l.set.AddDevice(name, "a", map[string]string{"size": "100M"}))
		want = append(want, "/mnt/"+name)
		all.Go(func() {
			if err := l.set.MountDevice(name, "/mnt/"+name, deviceset.MountOpts{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	slices.Sort(m.grownAt)
	equals(t, "grown at", m.grownAt, want)
}

// It writes nothing, and a device may be read-only from its first day.
func readOnlyFirst(t *testing.T) {
	l := live(t, newWorld())
	must(t, l.set.AddDevice("a", "", onExt4))
	must(t, l.set.AddDevice("b", "a", map[string]string{"readonly": "true", "size": "100M"}))
	l.unchanged(t, func() {
		must(t, l.set.MountDevice("a", "/mnt/a", deviceset.MountOpts{Options: []string{"ro"}}))
		must(t, l.set.MountDevice("b", "/mnt/b", deviceset.MountOpts{}))
	})
	for _, path := range []string{"/mnt/a", "/mnt/b"} {
		there, mounted, err := l.machine.MountedAt(path)
		must(t, err)
		equals(t, path, []bool{mounted, there.ReadOnly}, []bool{true, true})
	}
}

// A new device shows nothing of an old one, if one byte of a block is written.
func zeroing(t *testing.T) {
	l := live(t, newWorld())
	_, table := l.poolTable(t)
	equals(t, "skip_block_zeroing", table.SkipBlockZeroing, false)
	must(t, l.set.AddDevice("old", "", blank1M))
	l.writesBlocks(t, "old", 0, 8)
	must(t, l.set.DeleteDevice("old", true))
	must(t, l.set.AddDevice("new", "", blank1M))
	_, err := l.set.ActivateDevice("new")
	must(t, err)
	f, err := l.file("new")
	must(t, err)
	for at := int64(0); at < mib; at += blockSize {
		_, err := f.WriteAt(make([]byte, 512), at)
		must(t, err)
	}
	b := make([]byte, mib)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	must(t, f.Close())
	equals(t, "zeros", bytes.Equal(b, make([]byte, mib)), true)
}

// It is a tenth of the pool, also of one that grew, and somebody hears of it.
func lowWater(t *testing.T) {
	w := newWorld()
	l := working(t, w)
	check := func() {
		t.Helper()
		length, table := l.poolTable(t)
		equals(t, "low-water mark", table.LowWater, uint64(length/table.BlockSize)/10)
	}
	check()
	w.DiskAt(dataPath).Grow(dm.SectorsIn(2 * dataSize))
	must(t, l.set.ResizePool(2*dataSize))
	check()
	l.fillPool(t, "a")
	nextEvent(t, l.set, deviceset.EventLowData)
}

// nextEvent waits for an event of a kind.
func nextEvent(t testing.TB, s *deviceset.DeviceSet, kind deviceset.EventKind) deviceset.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		select {
		case e, ok := <-s.Events():
			if !ok {
				t.Fatalf("the events ended before %q", kind)
			}
			if e.Kind == kind {
				return e
			}
		case <-ctx.Done():
			t.Fatalf("no event %q came", kind)
		}
	}
}

// A dm device that has a's name, or its UUID, need not be a.
func strangersTable(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	a, err := l.set.Device("a")
	must(t, err)
	b, err := l.set.Device("b")
	must(t, err)
	pool, err := l.pool().Info()
	must(t, err)
	uuid := fmt.Sprintf("CSI-DMTHIN-%s-%d", l.set.PoolUUID(), a.ID)
	name := strings.TrimSuffix(l.set.Status().PoolName, "pool") + fmt.Sprint(a.ID)
	size := dm.SectorsIn(mib)
	for what, stranger := range map[string]struct {
		name, uuid string
		table      dm.Table
	}{
		"another target":  {"stranger", uuid, dm.Whole(size, dm.Zero{})},
		"another thin":    {"stranger", uuid, dm.Whole(size, dm.Thin{Pool: pool.Dev, ID: b.ID})},
		"a longer table":  {"stranger", uuid, dm.Whole(2*size, dm.Thin{Pool: pool.Dev, ID: a.ID})},
		"our name":        {name, "", dm.Whole(size, dm.Zero{})},
		"our name, a too": {name, "SOMEBODY", dm.Whole(size, dm.Thin{Pool: pool.Dev, ID: a.ID})},
	} {
		d, err := dm.Activate(w.Kernel(), stranger.name, stranger.uuid, stranger.table)
		must(t, err)
		if _, err := l.set.ActivateDevice("a"); !errors.Is(err, deviceset.ErrForeign) {
			t.Errorf("%s: error is %v", what, err)
		}
		after, err := d.Table()
		must(t, err)
		equals(t, what, after.String(), stranger.table.String())
		must(t, d.Remove())
	}

	// One that is ours and shorter, such as from before a growth, gets its length.
	_, err = dm.Activate(w.Kernel(), name, uuid, dm.Whole(size/2, dm.Thin{Pool: pool.Dev, ID: a.ID}))
	must(t, err)
	_, err = l.set.ActivateDevice("a")
	must(t, err)
	table, err := dm.ByName(w.Kernel(), name).Table()
	must(t, err)
	equals(t, "length", table.Length(), size)
}

func failedMount(t *testing.T) {
	l, m := liveOn(t, newWorld())
	must(t, l.set.AddDevice("a", "", onExt4))
	must(t, l.set.AddDevice("blank", "", blank1M))
	m.breakMount(unix.EINVAL)
	refuses(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}), unix.EINVAL)
	refuses(t, l.set.MountDevice("blank", "/mnt", deviceset.MountOpts{}), deviceset.ErrNotFormatted)
	equals(t, "active", []bool{l.isActive(t, "a"), l.isActive(t, "blank")}, []bool{false, false})

	// One that was active before stays so.
	_, err := l.set.ActivateDevice("a")
	must(t, err)
	refuses(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}), unix.EINVAL)
	equals(t, "active", l.isActive(t, "a"), true)
}

// A pool that failed has no figures, and says so.
func failedPool(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	_, err = l.set.ActivateDevice("a")
	must(t, err)
	w.DiskAt(metaPath).Fail(true, true)
	refuses(t, l.set.AddDevice("x", "", blank1M), deviceset.ErrUnavailable)
	status := l.set.Status()
	equals(t, "mode", status.Mode, "Fail")
	equals(t, "figures", []deviceset.DiskUsage{status.Data, status.Metadata}, []deviceset.DiskUsage{{}, {}})
	for _, name := range []string{"a", "b"} { // active, and not
		_, err := l.set.GetDeviceStatus(name)
		refuses(t, err, deviceset.ErrUnavailable)
	}
	equals(t, "list", l.set.List(), []string{"a", "b", "c"})
}

// Neither the same root, nor a copy of it.
func twoProcesses(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	l.unchanged(t, func() {
		_, err := begin(w, nil)
		refuses(t, err, deviceset.ErrInUse)
		_, err = deviceset.AdoptOn(w.Process(nil), root, poolOptions, true)
		refuses(t, err, deviceset.ErrInUse)
	})

	must(t, w.Process(nil).MakeSlots("/copy", label/2))
	for i, path := range simulated.SlotPaths("/copy") {
		w.DiskAt(path).Restore(w.DiskAt(simulated.SlotPaths(root)[i]))
	}
	l.unchanged(t, func() {
		_, err := deviceset.OpenQuiet(w.Process(nil), "/copy", label, poolOptions...)
		refuses(t, err, deviceset.ErrInUse)
		_, err = deviceset.AdoptOn(w.Process(nil), "/copy", poolOptions, true)
		refuses(t, err, deviceset.ErrInUse)
	})
	must(t, l.checkAlive())
}
