package deviceset_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

func TestAdoptDevice(t *testing.T) {
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	must(t, l.set.AddDevice("old", "a", nil))
	old, err := l.set.Device("old")
	must(t, err)
	const orphan = 7000
	must(t, l.pool().CreateSnap(orphan, old.ID))
	must(t, l.open("old"))
	must(t, l.set.DeleteDevice("old", false))
	l.closePod()
	w.RemoveRoot(root)
	w.Kill()

	// Shown, it changes nothing.
	before := w.Kernel().Digest()
	shown, err := deviceset.AdoptOn(w.Process(nil), root, poolOptions, false)
	must(t, err)
	equals(t, "done", shown.Done, false)
	equals(t, "deletions", shown.Deletions, []string{"old"})
	equals(t, "quarantined", len(shown.Quarantined), 2)
	w.Kill()
	_, err = begin(w, acked)
	refuses(t, err, deviceset.ErrForeign)
	w.Kill()
	equals(t, "changed", w.Kernel().Digest() != before, false)

	done, err := deviceset.AdoptOn(w.Process(nil), root, poolOptions, true)
	must(t, err)
	equals(t, "done", []any{done.Done, done.From, done.PoolUUID}, []any{true, "label", shown.PoolUUID})
	w.Kill()
	l, err = begin(w, acked)
	must(t, err)
	equals(t, "quarantined", l.set.Status().Quarantined, []dm.DeviceID{old.ID, orphan})
	equals(t, "list", l.set.List(), []string{"a", "b", "c"})
	a, err := l.set.Device("a")
	must(t, err)
	equals(t, "adopted", a.Adopted, true)

	l.unchanged(t, func() {
		refuses(t, l.set.AdoptDevice(7001, "x", 0), deviceset.ErrNotFound)
		refuses(t, l.set.AdoptDevice(orphan, "a", 0), deviceset.ErrExists)
		refuses(t, l.set.AdoptDevice(a.ID, "x", 0), deviceset.ErrExists)
		refuses(t, l.set.AdoptDevice(0, "x", 0), deviceset.ErrNotFound) // the label is nobody's
	})
	must(t, l.set.AdoptDevice(old.ID, "again", 2*mib))
	must(t, l.set.AdoptDevice(orphan, "stranger", 0))
	equals(t, "quarantined", len(l.set.Status().Quarantined), 0)
	rebooted(w)
	l, err = begin(w, acked)
	must(t, err)
	for name, size := range map[string]int64{"again": 2 * mib, "stranger": blockSize} { // as much as it maps
		d, err := l.set.Device(name)
		must(t, err)
		equals(t, name, []any{d.Size, d.Adopted}, []any{size, true})
		content, err := l.contentOf(name)
		must(t, err)
		equals(t, "content", content, byte(1))
		must(t, l.set.DeleteDevice(name, true))
	}
	must(t, l.checkPool())
}

// A second adoption knows what the first one knew of what it put into quarantine, and
// gives no id that an earlier owner may have had in flight.
func TestAdoptAgain(t *testing.T) {
	w, _ := prepared(t)
	l, _ := openWatched(t, w)
	must(t, l.open("b"))
	must(t, l.set.DeleteDevice("b", false))
	var whys []string
	var cursor dm.DeviceID
	for range 3 {
		w.RemoveRoot(root)
		w.Kill()
		a, err := deviceset.AdoptOn(w.Process(nil), root, poolOptions, true)
		must(t, err)
		equals(t, "quarantined", len(a.Quarantined), 1)
		equals(t, "name", a.Quarantined[0].Name, "b")
		whys = append(whys, a.Quarantined[0].Why)
		w.Kill()
		l, err = begin(w, model{})
		must(t, err)
		must(t, l.set.AddDevice("n", "", blank1M))
		n, err := l.set.Device("n")
		must(t, err)
		if n.ID <= cursor+1<<15 {
			t.Errorf("after id %d comes %d", cursor, n.ID)
		}
		cursor = n.ID
		must(t, l.set.DeleteDevice("n", true))
		must(t, l.set.WriteEnds())
	}
	equals(t, "why", whys, []string{whys[0], whys[0], whys[0]})
	equals(t, "why", strings.Contains(whys[0], "deletion"), true)
}

// The root of a healthy pool does not become that of another.
func TestAdoptIntoAnothersRoot(t *testing.T) {
	w, acked := prepared(t)
	w.NewDisk("/dev/other-data", dataSize)
	w.NewDisk("/dev/other-metadata", metaSize)
	other := []string{"dm.datadev=/dev/other-data", "dm.metadatadev=/dev/other-metadata", "dm.overprovision_ratio=0", "dm.basesize=1M"}
	set, err := deviceset.OpenQuiet(w.Process(nil), "/other", label, other...)
	must(t, err)
	must(t, set.AddDevice("theirs", "", blank1M))
	rebooted(w)
	before := w.Kernel().Digest()
	_, err = deviceset.AdoptOn(w.Process(nil), root, other, true)
	refuses(t, err, deviceset.ErrForeign)
	equals(t, "changed", w.Kernel().Digest() != before, false)
	w.Kill()
	l, err := begin(w, acked)
	must(t, err)
	equals(t, "list", l.set.List(), []string{"a", "b", "c"})
}

// A base device that was adopted before it was formatted is none any more, and neither
// is one that the pool has lost: the next device gets a new one.
func TestBaseMadeAnew(t *testing.T) {
	t.Run("adopted before it was formatted", func(t *testing.T) {
		w, _ := prepared(t)
		l, m := liveOn(t, w)
		m.breakMake(errors.New("mkfs failed"))
		if err := l.set.AddDevice("n", "", onExt4); err == nil {
			t.Fatal("it was made")
		}
		w.RemoveRoot(root)
		w.Kill()
		a, err := deviceset.AdoptOn(w.Process(nil), root, poolOptions, true)
		must(t, err)
		equals(t, "quarantined", len(a.Quarantined), 1)
		w.Kill()
		l, err = begin(w, model{})
		must(t, err)
		must(t, l.set.AddDevice("n", "", onExt4))
		must(t, l.set.MountDevice("n", "/mnt", deviceset.MountOpts{}))
	})
	t.Run("lost", func(t *testing.T) {
		w, _ := prepared(t)
		l, _ := openWatched(t, w)
		must(t, l.set.AddDevice("n", "", onExt4))
		base, err := l.set.Device("")
		must(t, err)
		must(t, l.pool().Delete(base.ID))
		w.Kill()
		l, err = begin(w, model{})
		must(t, err)
		equals(t, "ghosts", len(l.set.Status().Ghosts), 1)
		errs := atOnce(4, func(i int) error { return l.set.AddDevice(fmt.Sprint("m", i), "", onExt4) })
		must(t, errors.Join(errs...))
		equals(t, "ghosts", len(l.set.Status().Ghosts), 0)
		must(t, l.set.MountDevice("m0", "/mnt", deviceset.MountOpts{}))
		must(t, l.set.UnmountDevice("m0", "/mnt"))
		opensAgain(t, w)
	})
}

// What the pool has lost is not there, whoever asks for it again.
func TestMakeWhatIsLost(t *testing.T) {
	w, _ := prepared(t)
	l, _ := openWatched(t, w)
	a, err := l.set.Device("a")
	must(t, err)
	must(t, l.pool().Delete(a.ID))
	w.Kill()
	l, err = begin(w, model{})
	must(t, err)
	refuses(t, l.set.AddDevice("a", "", blank1M), deviceset.ErrLost)
	refuses(t, l.set.AddDevice("x", "a", nil), deviceset.ErrLost)
	must(t, l.set.DeleteDevice("a", true))
	must(t, l.set.AddDevice("a", "", blank1M))
	opensAgain(t, w)
}
