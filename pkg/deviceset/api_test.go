package deviceset_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

func TestGetDeviceStatus(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.set.AddDevice("b", "", map[string]string{"fs": "none", "size": "3000000"}))
	const sectors = blockSize / 512
	status := func(name string) deviceset.DevStatus {
		t.Helper()
		st, err := l.set.GetDeviceStatus(name)
		must(t, err)
		d, err := l.set.Device(name)
		must(t, err)
		equals(t, "id, size", []any{st.DeviceID, st.Size, st.SizeInSectors, st.TransactionID}, []any{int(d.ID), uint64(d.Size), uint64(d.Size) / 512, d.TransactionID})
		return *st
	}
	mapped := func(name string, blocks, end uint64) {
		t.Helper()
		st := status(name)
		highest := end * sectors
		if end > 0 {
			highest--
		}
		equals(t, name+": mapped, highest", []uint64{st.MappedSectors, st.HighestMappedSector}, []uint64{blocks * sectors, highest})
	}
	mapped("a", 0, 0)
	must(t, l.fillBlocks(t, "a", 4, 3))
	mapped("a", 3, 7) // active
	must(t, l.set.DeactivateDevice("a"))
	mapped("a", 3, 7) // and not
	l.writesBlocks(t, "a", 0, 1)
	mapped("a", 4, 7)
	equals(t, "rounded up", status("b").Size, uint64(23*blockSize))
	mapped("b", 0, 0)
	must(t, l.set.AddDevice("c", "a", nil))
	mapped("c", 4, 7) // shared, and counted
	mapped("a", 4, 7)
	equals(t, "rising", status("a").TransactionID < status("b").TransactionID && status("b").TransactionID < status("c").TransactionID, true)

	_, err := l.set.GetDeviceStatus("x")
	refuses(t, err, deviceset.ErrNotFound)
	_, err = l.set.GetDeviceStatus("../a")
	refuses(t, err, deviceset.ErrNotFound)

	// A thin device that is gone, and one that is another, after the next start.
	a, err := l.set.Device("a")
	must(t, err)
	b, err := l.set.Device("b")
	must(t, err)
	must(t, l.pool().Delete(a.ID))
	must(t, l.pool().Delete(b.ID))
	must(t, l.set.Shutdown(root))
	l = live(t, w)
	must(t, l.pool().CreateThin(b.ID))
	must(t, l.set.Shutdown(root))
	l = live(t, w)
	_, err = l.set.GetDeviceStatus("a")
	refuses(t, err, deviceset.ErrLost)
	_, err = l.set.GetDeviceStatus("b")
	refuses(t, err, deviceset.ErrQuarantined)
	equals(t, "quarantined", l.set.Status().Quarantined, []dm.DeviceID{b.ID})
	for _, err := range []error{
		l.set.DeleteDevice("b", true), l.set.AddDevice("x", "b", nil), l.set.GrowDevice("b", 100*mib),
		l.set.MountDevice("b", "/mnt", deviceset.MountOpts{}), l.set.FormatDevice("b", filesystem.Ext4, nil),
	} {
		refuses(t, err, deviceset.ErrQuarantined)
	}
	has, err := l.pool().Has(b.ID)
	must(t, err)
	equals(t, "kept", has, true)
}

func TestAddDevice(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	size := func(name string) int64 {
		t.Helper()
		d, err := l.set.Device(name)
		must(t, err)
		return d.Size
	}
	must(t, l.set.AddDevice("a", "", map[string]string{"fs": "none", "size": "2M", "label.k": "v"}))
	for name, test := range map[string]struct {
		options map[string]string
		size    int64
	}{
		"absent":   {nil, 2 * mib},
		"zero":     {map[string]string{"size": "0"}, 2 * mib},
		"equal":    {map[string]string{"SIZE": "2M"}, 2 * mib},
		"larger":   {map[string]string{"size": "3M"}, 3 * mib},
		"unround":  {map[string]string{"size": "2097153"}, 2*mib + blockSize},
		"readonly": {map[string]string{"readonly": "true"}, 2 * mib},
	} {
		for range 2 { // the same again is no error
			must(t, l.set.AddDevice(name, "a", test.options))
		}
		equals(t, name, size(name), test.size)
		d, err := l.set.Device(name)
		must(t, err)
		equals(t, "parent, labels, read-only", []any{d.Parent, len(d.Labels), d.ReadOnly}, []any{"a", 0, name == "readonly"})
	}
	must(t, l.set.AddDevice("ofacopy", "larger", nil))
	equals(t, "of a copy", size("ofacopy"), 3*mib)
	must(t, l.set.AddDevice("layer", "", nil))
	equals(t, "of the base", size("layer"), mib)
	layer, err := l.set.Device("layer")
	must(t, err)
	equals(t, "parent, file system", []string{layer.Parent, layer.FS}, []string{"", "ext4"})
	must(t, l.set.AddDevice("xfs", "", map[string]string{"fs": "xfs"}))

	// The same call, after its source is gone, whose name another device may have had.
	must(t, l.set.AddDevice("source", "a", nil))
	must(t, l.set.AddDevice("orphaned", "source", map[string]string{"size": "3M"}))
	must(t, l.set.DeleteDevice("source", true))
	must(t, l.set.AddDevice("orphaned", "source", map[string]string{"size": "3M"}))
	must(t, l.set.AddDevice("orphaned", "source", nil))
	refuses(t, l.set.AddDevice("orphaned", "source", map[string]string{"size": "4M"}), deviceset.ErrNotFound)
	refuses(t, l.set.AddDevice("a", "source", nil), deviceset.ErrNotFound)

	l.unchanged(t, func() {
		for _, test := range []struct {
			name, source string
			options      map[string]string
			err          error
		}{
			{"x", "a", map[string]string{"size": "1M"}, deviceset.ErrTooSmall},
			{"x", "", map[string]string{"size": "512k"}, deviceset.ErrTooSmall}, // than the base
			{"x", "nobody", nil, deviceset.ErrNotFound},
			{"x", "x", nil, deviceset.ErrInvalid},
			{"x", "a", map[string]string{"fs": "ext4"}, deviceset.ErrInvalid},
			{"x", "layer", map[string]string{"fs": "xfs"}, deviceset.ErrInvalid},
			{"x", "layer", map[string]string{"mkfsarg": "-q"}, deviceset.ErrInvalid},
			{"x", "", map[string]string{"fs": "btrfs"}, deviceset.ErrInvalid},
			{"x", "", map[string]string{"quota": "1G"}, deviceset.ErrInvalid},
			{"x", "", map[string]string{"fs": "none", "size": "2000P"}, deviceset.ErrInvalid},
			{"a", "", blank1M, deviceset.ErrExists},
			{"equal", "larger", map[string]string{"size": "3M"}, deviceset.ErrExists},
			{"larger", "a", map[string]string{"size": "4M"}, deviceset.ErrExists},
			{"larger", "", map[string]string{"fs": "none", "size": "3M"}, deviceset.ErrExists},
			{"readonly", "a", nil, deviceset.ErrExists},
			{"xfs", "", nil, deviceset.ErrExists},
		} {
			if err := l.set.AddDevice(test.name, test.source, test.options); !errors.Is(err, test.err) {
				t.Errorf("%s of %q with %v: error is %v, want %v", test.name, test.source, test.options, err, test.err)
			}
		}
	})
	equals(t, "x", l.set.HasDevice("x"), false)

	// A device whose deletion is pending has given its name away.
	must(t, l.open("a"))
	must(t, l.set.DeleteDevice("a", false))
	must(t, l.set.AddDevice("a", "", blank1M))
	equals(t, "the new a", size("a"), mib)
	l.closePod()
	l.set.Finish()
	equals(t, "deletions pending", l.set.Status().DeferredDeletedDeviceCount, uint(0))
}

// What admission refuses, the pool never hears of.
func TestAdmission(t *testing.T) {
	t.Run("too little data is free", func(t *testing.T) {
		l := live(t, newWorld())
		must(t, l.set.AddDevice("a", "", map[string]string{"fs": "none", "size": "100M"}))
		l.writesBlocks(t, "a", 0, 117) // of 127 beside the label
		l.set.Status()                 // or admission goes by one that is up to a second old
		l.unchanged(t, func() {
			refuses(t, l.set.AddDevice("b", "", blank1M), deviceset.ErrPoolFull)
			refuses(t, l.set.AddDevice("b", "a", nil), deviceset.ErrPoolFull)
		})
		equals(t, "list", l.set.List(), []string{"a"})
		must(t, l.set.DeleteDevice("a", true))
		must(t, l.set.AddDevice("b", "", blank1M))
	})
	t.Run("too little metadata is free", func(t *testing.T) {
		l := live(t, newWorld(), "dm.min_free_metadata=99%")
		l.unchanged(t, func() { refuses(t, l.set.AddDevice("b", "", blank1M), deviceset.ErrPoolFull) })
	})
	t.Run("too much is promised", func(t *testing.T) {
		w := newWorld()
		l := live(t, w, "dm.overprovision_ratio=1.0")
		of10M := map[string]string{"fs": "none", "size": "10M"}
		must(t, l.set.AddDevice("a", "", of10M))
		l.unchanged(t, func() {
			refuses(t, l.set.AddDevice("b", "", of10M), deviceset.ErrPoolFull)
			refuses(t, l.set.AddDevice("b", "a", nil), deviceset.ErrPoolFull)
			refuses(t, l.set.GrowDevice("a", 17*mib), deviceset.ErrPoolFull)
		})
		equals(t, "promised", []any{l.set.Status().ProvisionedBytes, l.set.Status().OverProvisioning}, []any{uint64(10 << 20), 10.0 / 16})
		must(t, l.set.AddDevice("snapshot", "a", map[string]string{"readonly": "true"})) // promises nothing
		must(t, l.set.AddDevice("layer", "", onExt4))                                    // nor does a layer
		equals(t, "promised", l.set.Status().ProvisionedBytes, uint64(10<<20))

		// What is pending counts until it is gone.
		must(t, l.open("a"))
		must(t, l.set.DeleteDevice("a", false))
		l.unchanged(t, func() { refuses(t, l.set.AddDevice("b", "", of10M), deviceset.ErrPoolFull) })
		l.closePod()
		l.set.Finish()
		must(t, l.set.AddDevice("b", "", of10M))
		must(t, l.set.Shutdown(root))
		l = live(t, w, "dm.overprovision_ratio=2")
		must(t, l.set.AddDevice("c", "", of10M))
		equals(t, "promised", l.set.Status().OverProvisioning, 20.0/16)
	})
	t.Run("the pool has had all its snapshots", func(t *testing.T) {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		equals(t, "snapshots", l.set.Status().Snapshots, uint64(1))
		l.set.SetTime(deviceset.LastTime - 1)
		must(t, l.set.AddDevice("x", "a", nil))
		l.unchanged(t, func() {
			err := l.set.AddDevice("y", "a", nil)
			refuses(t, err, deviceset.ErrPoolFull)
			equals(t, "said", strings.Contains(err.Error(), "2^24"), true)
		})
		must(t, l.set.AddDevice("y", "", blank1M))
		must(t, l.set.DeleteDevice("x", true))
	})
	t.Run("the pool is full", func(t *testing.T) {
		l := live(t, newWorld(), "dm.min_free_space=0%")
		must(t, l.set.AddDevice("b", "", blank1M))
		l.fillPool(t, "a")
		refuses(t, l.set.AddDevice("c", "a", nil), deviceset.ErrPoolFull)
		refuses(t, l.set.GrowDevice("a", 2<<30), deviceset.ErrPoolFull)
		must(t, l.set.DeleteDevice("b", true))
		must(t, l.set.DeleteDevice("a", true))
		equals(t, "mode", l.set.Status().Mode, "rw")
		must(t, l.checkAlive())
	})
}

func TestDeleteDevice(t *testing.T) {
	t.Run("of an unknown device", func(t *testing.T) {
		l := live(t, newWorld())
		l.unchanged(t, func() {
			for _, sync := range []bool{false, true} {
				refuses(t, l.set.DeleteDevice("x", sync), deviceset.ErrNotFound)
			}
		})
	})
	t.Run("twice", func(t *testing.T) {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		must(t, l.set.DeleteDevice("b", true))
		refuses(t, l.set.DeleteDevice("b", true), deviceset.ErrNotFound)
	})
	t.Run("leaves copies alone", func(t *testing.T) {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		must(t, l.set.AddDevice("d", "c", nil))
		must(t, l.set.DeleteDevice("a", true))
		must(t, l.set.DeleteDevice("c", true))
		content, err := l.contentOf("d")
		must(t, err)
		equals(t, "content", content, byte(1))
		must(t, l.set.DeleteDevice("d", true))
		must(t, l.checkPool())
	})
	t.Run("of an open device waits, and the worker does it", func(t *testing.T) {
		l := working(t, newWorld())
		must(t, l.set.AddDevice("a", "", blank1M))
		l.writesBlocks(t, "a", 0, 4)
		used := l.set.Status().Data.Used
		must(t, l.open("a"))
		must(t, l.set.DeleteDevice("a", false))
		equals(t, "has, list", []any{l.set.HasDevice("a"), len(l.set.List()), l.set.Status().DeferredDeletedDeviceCount}, []any{false, 0, uint(1)})
		refuses(t, l.set.DeleteDevice("a", false), deviceset.ErrNotFound)
		b := make([]byte, 4096)
		_, err := l.pod.ReadAt(b, 3*blockSize) // whoever has it open keeps it
		must(t, err)
		equals(t, "content", b[0], byte(4))
		l.closePod()
		comesTrue(t, "the deletion", func() bool { return l.set.Status().DeferredDeletedDeviceCount == 0 })
		must(t, l.checkPool())
		equals(t, "freed", used-l.set.Status().Data.Used, uint64(4*blockSize))
	})
	t.Run("of an open device at once is refused, and it stays", func(t *testing.T) {
		for _, options := range [][]string{nil, {"dm.use_deferred_deletion=false"}} {
			w := newWorld()
			l := live(t, w, options...)
			must(t, l.set.AddDevice("a", "", blank1M))
			must(t, l.write("a", 1))
			must(t, l.open("a"))
			l.unchanged(t, func() { refuses(t, l.set.DeleteDevice("a", len(options) == 0), deviceset.ErrBusy) })
			must(t, l.write("a", 2))
			must(t, l.set.AddDevice("c", "a", nil))
			l.closePod()
			l.set.Finish()
			content, err := l.contentOf("a")
			must(t, err)
			equals(t, "content", content, byte(2))
			equals(t, "list", l.set.List(), []string{"a", "c"})
			must(t, l.set.DeleteDevice("a", true))
		}
	})
	t.Run("gives the blocks of a file back", func(t *testing.T) {
		w := newWorld()
		l, err := beginWith(w, loopOptions...)
		must(t, err)
		must(t, l.set.AddDevice("a", "", blank1M))
		l.writesBlocks(t, "a", 0, 8)
		holds := func() bool {
			return bytes.Contains(readDisk(t, w, root+"/devicemapper/data", 0, dataSize), bytes.Repeat([]byte{8}, blockSize))
		}
		equals(t, "before", holds(), true)
		must(t, l.set.DeleteDevice("a", true))
		equals(t, "after", holds(), false)
		must(t, l.checkDevices())
	})
}

func TestLists(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	names := []string{"10", "9", "A", "_", "a", "b.c", "b_c", "z"}
	for _, name := range []string{"z", "b_c", "10", "a", "_", "9", "A", "b.c"} {
		must(t, l.set.AddDevice(name, "", onExt4)) // with a base
	}
	must(t, l.set.AddDevice("pending", "", blank1M))
	must(t, l.open("pending"))
	must(t, l.set.DeleteDevice("pending", false))
	check := func() {
		t.Helper()
		equals(t, "list", l.set.List(), names)
		l.set.List()[0] = "changed" // a copy
		equals(t, "list", l.set.List(), names)
		for name, want := range map[string]bool{"a": true, "": true, "x": false, "pending": false, "../a": false, "a/../a": false} {
			equals(t, "has "+name, l.set.HasDevice(name), want)
		}
		all, next := l.set.Devices("", 100)
		equals(t, "devices", []any{namesOf(all), next}, []any{names, ""})
		equals(t, "exactly all", pages(l.set, len(names), nil), names)
		none, next := l.set.Devices("zz", 10)
		equals(t, "behind the last", []any{len(none), next}, []any{0, ""})
		none, next = l.set.Devices("", 0)
		equals(t, "none asked for", []any{len(none), next}, []any{0, ""})
	}
	check()
	w.Kill()
	pod := l.pod
	l = live(t, w)
	l.pod = pod
	check()
	l.closePod()
	l.set.Finish()
	check()
	must(t, l.set.Shutdown(root))
	l = live(t, w)
	check()
}

func namesOf(devices []deviceset.Device) (names []string) {
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return names
}

// pages reads all devices page by page, with something happening between two.
func pages(s *deviceset.DeviceSet, limit int, between func(page int)) (names []string) {
	for page, after := 0, ""; ; page++ {
		devices, next := s.Devices(after, limit)
		names = append(names, namesOf(devices)...)
		if next == "" {
			return names
		}
		after = next
		if between != nil {
			between(page)
		}
	}
}

// A device that is there all the time is listed once, whatever comes and goes.
func TestPages(t *testing.T) {
	l := live(t, newWorld())
	var stay []string
	for i := range 20 {
		name := fmt.Sprintf("n%02d", i)
		must(t, l.set.AddDevice(name, "", blank1M))
		if i%4 != 2 {
			stay = append(stay, name)
		}
	}
	seen := pages(l.set, 3, func(page int) {
		cursor := page*3 + 2
		for _, i := range []int{cursor, cursor - 1, cursor + 1} { // the cursor itself, before, behind
			if i%4 == 2 && i < 20 {
				if err := l.set.DeleteDevice(fmt.Sprintf("n%02d", i), true); err != nil && !errors.Is(err, deviceset.ErrNotFound) {
					t.Fatal(err)
				}
			}
		}
		must(t, l.set.AddDevice(fmt.Sprintf("a%02d", page), "", blank1M))
		must(t, l.set.AddDevice(fmt.Sprintf("n%02d-new", page), "", blank1M))
	})
	equals(t, "sorted", slices.IsSorted(seen), true)
	for _, name := range stay {
		if n := len(slices.DeleteFunc(slices.Clone(seen), func(s string) bool { return s != name })); n != 1 {
			t.Errorf("%s was listed %d times", name, n)
		}
	}
}

func TestMounts(t *testing.T) {
	l := live(t, newWorld())
	for _, name := range []string{"a", "b"} {
		must(t, l.set.AddDevice(name, "", onExt4))
	}
	must(t, l.set.AddDevice("blank", "", blank1M))
	none := deviceset.MountOpts{}
	refuses(t, l.set.MountDevice("x", "/mnt", none), deviceset.ErrNotFound)
	refuses(t, l.set.UnmountDevice("x", "/mnt"), deviceset.ErrNotFound)
	refuses(t, l.set.MountDevice("blank", "/mnt", none), deviceset.ErrNotFormatted)
	must(t, l.set.UnmountDevice("a", "/mnt")) // it is not mounted

	for range 2 {
		must(t, l.set.MountDevice("a", "/mnt/1", none))
	}
	must(t, l.set.MountDevice("a", "/mnt/2", none))
	must(t, l.set.MountDevice("b", "/mnt/3", none))
	must(t, l.set.UnmountDevice("a", "/mnt/1"))
	equals(t, "active", l.isActive(t, "a"), true)
	must(t, l.set.UnmountDevice("a", "/mnt/1"))
	equals(t, "active", l.isActive(t, "a"), true)
	must(t, l.set.UnmountDevice("a", "/mnt/2"))
	equals(t, "active", l.isActive(t, "a"), false)
	equals(t, "active", l.isActive(t, "b"), true)
	must(t, l.set.UnmountDevice("b", "/mnt/3"))
	equals(t, "devices", len(l.devices(t)), 3) // the label, the pool and its metadata

	// One that is active as a block device is so until it is mounted and unmounted.
	_, err := l.set.ActivateDevice("a")
	must(t, err)
	must(t, l.open("a"))
	must(t, l.set.MountDevice("a", "/mnt", none))
	must(t, l.set.UnmountDevice("a", "/mnt"))
	equals(t, "active", l.isActive(t, "a"), true)
	l.closePod()
	equals(t, "active", l.isActive(t, "a"), false)
}

// dying is a machine whose process dies when it is to grow a file system.
type dying struct {
	*simulated.Machine
	world *simulated.World
}

func (m dying) GrowFS(context.Context, dm.Info, string, filesystem.Type) error {
	m.world.Kill()
	return errors.New("killed")
}

// A process that dies between a mount and the growth of the file system leaves that to
// whoever mounts it again.
func TestMountAgainGrows(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("a", "", map[string]string{"fs": "ext4", "size": "32M"}))
	w.Kill()
	set, err := deviceset.OpenQuiet(dying{w.Process(nil), w}, root, label, poolOptions...)
	must(t, err)
	if err := set.MountDevice("a", "/mnt", deviceset.MountOpts{}); err == nil {
		t.Fatal("it did not die")
	}
	l = live(t, w)
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	equals(t, "size", l.fileSystem(t, "a"), int64(32*mib))
	must(t, l.set.UnmountDevice("a", "/mnt"))
}

func TestUnmountWithoutDeferredRemoval(t *testing.T) {
	l := live(t, newWorld(), "dm.use_deferred_removal=false", "dm.use_deferred_deletion=false")
	must(t, l.set.AddDevice("a", "", onExt4))
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	must(t, l.open("a"))
	refuses(t, l.set.UnmountDevice("a", "/mnt"), deviceset.ErrBusy)
	l.closePod()
	equals(t, "active", l.isActive(t, "a"), true)
	must(t, l.set.UnmountDevice("a", "/mnt"))
	equals(t, "active", l.isActive(t, "a"), false)
}

func TestActivateDevice(t *testing.T) {
	l := live(t, newWorld())
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.set.AddDevice("snapshot", "a", map[string]string{"readonly": "true"}))
	path, err := l.set.ActivateDevice("a")
	must(t, err)
	again, err := l.set.ActivateDevice("a")
	must(t, err)
	equals(t, "path", again, path)
	must(t, l.open("a"))
	refuses(t, l.set.DeactivateDevice("a"), deviceset.ErrBusy)
	l.closePod()
	for range 2 {
		must(t, l.set.DeactivateDevice("a"))
	}
	equals(t, "active", l.isActive(t, "a"), false)
	refuses(t, l.fillBlocks(t, "snapshot", 0, 1), unix.EPERM)
	_, err = l.set.ActivateDevice("x")
	refuses(t, err, deviceset.ErrNotFound)
	refuses(t, l.set.DeactivateDevice("x"), deviceset.ErrNotFound)
}

func TestGrowDevice(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.fillBlocks(t, "a", 0, 8))
	refuses(t, l.fillBlocks(t, "a", 8, 1), unix.EIO)
	for _, size := range []int64{mib, mib - 1, 2 * mib, 2 * mib, 2*mib + 1} { // up to whole blocks
		must(t, l.set.GrowDevice("a", size))
	}
	must(t, l.fillBlocks(t, "a", 8, 9)) // while it is active
	l.unchanged(t, func() {
		refuses(t, l.set.GrowDevice("a", 2*mib), deviceset.ErrTooSmall)
		refuses(t, l.set.GrowDevice("a", 0), deviceset.ErrInvalid)
		refuses(t, l.set.GrowDevice("a", 1<<62), deviceset.ErrInvalid)
		refuses(t, l.set.GrowDevice("x", mib), deviceset.ErrNotFound)
	})
	rebooted(w)
	l = live(t, w)
	a, err := l.set.Device("a")
	must(t, err)
	equals(t, "size", a.Size, 2*mib+blockSize)
	must(t, l.fillBlocks(t, "a", 16, 1))
}

func TestFormatDevice(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.set.AddDevice("written", "", blank1M))
	l.writesBlocks(t, "written", 0, 1)
	must(t, l.set.AddDevice("copy", "a", nil))
	must(t, l.pool().CreateThin(500))
	must(t, l.set.Shutdown(root))
	l = live(t, w)
	must(t, l.set.AdoptDevice(500, "adopted", 0))
	for range 2 {
		must(t, l.set.FormatDevice("a", filesystem.Ext4, nil))
	}
	equals(t, "active", l.isActive(t, "a"), false)
	l.unchanged(t, func() {
		refuses(t, l.set.FormatDevice("a", filesystem.XFS, nil), deviceset.ErrExists)
		refuses(t, l.set.FormatDevice("written", filesystem.Ext4, nil), deviceset.ErrForeign)
		refuses(t, l.set.FormatDevice("copy", filesystem.Ext4, nil), deviceset.ErrInvalid)
		refuses(t, l.set.FormatDevice("adopted", filesystem.Ext4, nil), deviceset.ErrInvalid)
		refuses(t, l.set.FormatDevice("x", filesystem.Ext4, nil), deviceset.ErrNotFound)
	})
	must(t, l.set.MountDevice("a", "/mnt", deviceset.MountOpts{}))
	must(t, l.set.UnmountDevice("a", "/mnt"))

	// Asked for with arguments of its own, a device is no copy of the base.
	must(t, l.set.AddDevice("special", "", map[string]string{"mkfsarg": "-N 100", "size": "3M"}))
	special, err := l.set.Device("special")
	must(t, err)
	equals(t, "size, fs, parent", []any{special.Size, special.FS, special.Parent}, []any{3 * mib, "ext4", ""})
}

func TestStatus(t *testing.T) {
	// agrees compares with what the kernel says.
	agrees := func(t *testing.T, l *life, mode string) deviceset.Status {
		t.Helper()
		st := l.set.Status()
		want, err := l.pool().PoolStatus()
		must(t, err)
		equals(t, "mode", []any{st.Mode, want.Mode.String()}, []any{mode, mode})
		equals(t, "flags", []any{st.NeedsCheck, st.ErrorIfNoSpace, st.TransactionID, st.HeldMetadataSnapshot},
			[]any{want.NeedsCheck, want.ErrorIfNoSpace, want.TransactionID, want.HeldRoot != 0})
		usage := func(u dm.Usage, block uint64) deviceset.DiskUsage {
			return deviceset.DiskUsage{Used: u.Used * block, Total: u.Total * block, Available: u.Free() * block}
		}
		equals(t, "data", st.Data, usage(want.Data, blockSize))
		equals(t, "metadata", st.Metadata, usage(want.Metadata, 4096))
		return *st
	}
	t.Run("0 and 100 percent", func(t *testing.T) {
		l := live(t, newWorld(), "dm.min_free_space=20%")
		st := agrees(t, l, "rw")
		equals(t, "used by the label alone", []uint64{st.Data.Used, st.Data.Used + st.Data.Available}, []uint64{blockSize, st.Data.Total})
		equals(t, "block size, least free", []uint64{st.SectorSize, st.MinFreeSpace}, []uint64{blockSize, 25 * blockSize})
		equals(t, "held back", st.MetadataHeldBack+st.Metadata.Total, uint64(metaSize))
		equals(t, "base", []any{st.BaseDeviceFS, st.BaseDeviceSize}, []any{"ext4", uint64(mib)})
		must(t, l.pool().ReserveMetadataSnap())
		equals(t, "held", agrees(t, l, "rw").HeldMetadataSnapshot, true)
		must(t, l.pool().ReleaseMetadataSnap())
		l.fillPool(t, "a")
		st = agrees(t, l, "out_of_data_space")
		equals(t, "available", []uint64{st.Data.Available, st.Data.Used}, []uint64{0, st.Data.Total})
		equals(t, "devices", []any{st.Devices, st.ReadOnly}, []any{1, ""})
	})
	t.Run("out of metadata", func(t *testing.T) {
		l := live(t, newWorld())
		pool := l.pool()
		var err error
		for id := dm.DeviceID(1 << 20); err == nil; id++ {
			err = pool.CreateThin(id)
		}
		st := agrees(t, l, "ro")
		equals(t, "available", []any{st.Metadata.Available, st.NeedsCheck}, []any{uint64(0), false})
		refuses(t, l.set.AddDevice("a", "", blank1M), deviceset.ErrPoolFull)
		l.set.Relieve()
		agrees(t, l, "rw")
		equals(t, "held back", l.set.Status().MetadataHeldBack, uint64(0))
	})
	t.Run("needs a check", func(t *testing.T) {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		w.DiskAt(metaPath).Fail(false, true)
		refuses(t, l.set.AddDevice("x", "", blank1M), deviceset.ErrUnavailable)
		st := agrees(t, l, "ro")
		equals(t, "needs check", []any{st.NeedsCheck, st.OpenOperations}, []any{true, 1})
		w.DiskAt(metaPath).Fail(false, false)
		err = l.set.AddDevice("y", "", blank1M)
		refuses(t, err, deviceset.ErrUnavailable)
		equals(t, "said what helps", strings.Contains(err.Error(), "thin_check"), true)
		content, err := l.contentOf("a") // it is served as far as it goes
		must(t, err)
		equals(t, "content", content, byte(1))
		st = *l.set.Status()
		equals(t, "list, operations", []any{l.set.List(), st.OpenOperations}, []any{[]string{"a", "b", "c"}, 1})
	})
	t.Run("Fail", func(t *testing.T) {
		w, acked := prepared(t)
		l, err := begin(w, acked)
		must(t, err)
		w.DiskAt(metaPath).Fail(true, true)
		refuses(t, l.set.AddDevice("x", "", blank1M), deviceset.ErrUnavailable)
		agrees(t, l, "Fail")
	})
	t.Run("a file gives no more than what it is on", func(t *testing.T) {
		w := newWorld()
		l, err := beginWith(w, loopOptions...)
		must(t, err)
		w.SetFree(3*mib + 5)
		st := l.set.Status()
		equals(t, "available", st.Data.Available, uint64(3*mib+5))
		equals(t, "total", st.Data.Total, uint64(dataSize))
		// What it has been given already, and does not use now, it has.
		w.SetAllocated(int64(st.Data.Used) + 2*mib)
		equals(t, "available", l.set.Status().Data.Available, uint64(5*mib+5))
		w.SetFree(0)
		w.SetAllocated(dataSize)
		equals(t, "available", l.set.Status().Data.Available, uint64(dataSize)-st.Data.Used)
	})
	t.Run("what the options have no use for", func(t *testing.T) {
		l := live(t, newWorld(), "test=true")
		equals(t, "warnings", len(l.set.Status().Warnings), 1)
	})
	t.Run("a pool that is missing", func(t *testing.T) {
		w, acked := prepared(t)
		w.DiskAt(metaPath).Fail(true, true)
		l, err := begin(w, acked)
		must(t, err)
		st := l.set.Status()
		equals(t, "mode", []any{st.Mode, st.ReadOnly != "", st.Devices}, []any{"unavailable", true, 3})
		equals(t, "list", l.set.List(), []string{"a", "b", "c"})
		refuses(t, l.set.AddDevice("x", "", blank1M), deviceset.ErrUnavailable)
		_, err = l.set.GetDeviceStatus("a")
		refuses(t, err, deviceset.ErrUnavailable)
	})
}

func TestEvents(t *testing.T) {
	t.Run("low on data, and full", func(t *testing.T) {
		l := working(t, newWorld())
		l.fillPool(t, "a")
		low := nextEvent(t, l.set, deviceset.EventLowData)
		equals(t, "error", low.Err, nil)
		full := nextEvent(t, l.set, deviceset.EventMode)
		equals(t, "mode", full.Status.Mode, dm.PoolOutOfDataSpace)
		must(t, l.set.DeleteDevice("a", true))
		equals(t, "mode", nextEvent(t, l.set, deviceset.EventMode).Status.Mode, dm.PoolWrite)
	})
	t.Run("low on metadata", func(t *testing.T) {
		w := newWorld()
		set, err := deviceset.OpenQuiet(w.Process(nil), root, 8*mib, poolOptions...) // nobody watches
		must(t, err)
		pool := dm.Pool{Device: dm.ByName(w.Kernel(), set.Status().PoolName)}
		for id := dm.DeviceID(1 << 20); ; id++ {
			must(t, pool.CreateThin(id))
			if status, err := pool.PoolStatus(); err != nil || status.Metadata.Free() < status.MetadataLowWater {
				must(t, err)
				break
			}
		}
		must(t, set.Shutdown(root))
		l := working(t, w)
		grown := nextEvent(t, l.set, deviceset.EventGrown)
		equals(t, "all of it", grown.Status.Metadata.Total, uint64(metaSize/4096))
	})
	t.Run("they end", func(t *testing.T) {
		set, err := deviceset.Open(newWorld().Process(nil), root, true, poolOptions, nil, nil)
		must(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range set.Events() {
			}
		}()
		must(t, set.Shutdown(root))
		<-done
	})
}

// thinIDs returns the ids of a pool's thin devices, as of the last commit.
func (l *life) thinIDs(t testing.TB) (ids []dm.DeviceID) {
	t.Helper()
	m, err := l.world.DiskAt(metaPath).Metadata()
	must(t, err)
	devices, err := m.Devices()
	must(t, err)
	for _, d := range devices {
		ids = append(ids, d.ID)
	}
	must(t, m.Close())
	return ids
}

func TestSetLabels(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	labelsOf := func() map[string]string {
		t.Helper()
		d, err := l.set.Device("a")
		must(t, err)
		return d.Labels
	}
	want := map[string]string{"csi.dev/a": "ä and \"quotes\" <&>", "B": "", "b": strings.Repeat("v", 256), strings.Repeat("k", 63): "x"}
	given := maps.Clone(want)
	must(t, l.set.SetLabels("a", given))
	given["later"] = "changes nothing"
	labelsOf()["later"] = "nor does this"
	equals(t, "labels", labelsOf(), want)
	rebooted(w)
	l, err = begin(w, acked)
	must(t, err)
	equals(t, "labels", labelsOf(), want)
	must(t, l.set.AddDevice("copy", "a", nil))
	d, err := l.set.Device("copy")
	must(t, err)
	equals(t, "labels of a copy", len(d.Labels), 0)

	many := map[string]string{}
	for i := range 64 {
		many[fmt.Sprint(i)] = "v"
	}
	must(t, l.set.SetLabels("a", many))
	l.unchanged(t, func() {
		many["64"] = "v"
		refuses(t, l.set.SetLabels("a", many), deviceset.ErrInvalid)
		for key, value := range map[string]string{
			"": "v", strings.Repeat("k", 64): "v", "a b": "v", "ä": "v", "k": strings.Repeat("v", 257), "l": "a\nb", "m": "\xff",
		} {
			refuses(t, l.set.SetLabels("a", map[string]string{key: value}), deviceset.ErrInvalid)
		}
		refuses(t, l.set.SetLabels("x", nil), deviceset.ErrNotFound)
	})
	must(t, l.set.SetLabels("a", nil))
	equals(t, "labels", len(labelsOf()), 0)
}

func TestDeviceUsage(t *testing.T) {
	l := live(t, newWorld())
	must(t, l.set.AddDevice("a", "", blank1M))
	usage := func(name string, exclusive, shared int64) {
		t.Helper()
		u, err := l.set.DeviceUsage(name)
		must(t, err)
		equals(t, name, u, deviceset.DeviceUsage{Exclusive: exclusive * blockSize, Shared: shared * blockSize})
	}
	usage("a", 0, 0)
	l.writesBlocks(t, "a", 0, 3)
	usage("a", 3, 0)
	must(t, l.set.AddDevice("b", "a", nil))
	usage("a", 0, 3)
	usage("b", 0, 3)
	l.writesBlocks(t, "a", 0, 1)
	usage("a", 1, 2)
	usage("b", 1, 2)
	must(t, l.set.AddDevice("c", "b", nil))
	must(t, l.set.DeleteDevice("a", true))
	usage("b", 0, 3)
	must(t, l.set.DeleteDevice("c", true))
	usage("b", 3, 0)
	_, err := l.set.DeviceUsage("a")
	refuses(t, err, deviceset.ErrNotFound)
}
