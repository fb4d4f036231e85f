package deviceset_test

import (
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
)

func readRoot(t testing.TB, w *simulated.World) deviceset.RootContent {
	t.Helper()
	before := w.Kernel().Digest()
	found, err := deviceset.ReadRoot(w.Process(nil), root)
	must(t, err)
	equals(t, "digest", w.Kernel().Digest(), before)
	return found
}

// What is under a root tells whether anything is in the pool, and the options by which it
// is opened again.
func TestReadRoot(t *testing.T) {
	for name, options := range map[string][]string{"disks": poolOptions, "files": loopOptions, "existing": existingOptions} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			existingPool(t, w, "theirs")
			_, err := deviceset.ReadRoot(w.Process(nil), root)
			refuses(t, err, deviceset.ErrNoPool)
			l, err := beginWith(w, options...)
			must(t, err)
			found, err := deviceset.ReadRoot(l.machine, root)
			refuses(t, err, deviceset.ErrInUse)
			equals(t, "uuid", found, deviceset.RootContent{PoolUUID: l.set.PoolUUID()})
			must(t, l.set.Shutdown(root))
			found = readRoot(t, w)
			equals(t, "found", []any{found.PoolUUID, found.Empty, found.OnFiles, found.Damage}, []any{l.set.PoolUUID(), true, name == "files", nil})

			l, err = beginWith(w, options...)
			must(t, err)
			must(t, l.set.AddDevice("layer", "", nil))
			must(t, l.set.DeleteDevice("layer", false))
			must(t, l.set.Shutdown(root))
			equals(t, "empty with a base device", readRoot(t, w).Empty, true)

			l, err = beginWith(w, options...)
			must(t, err)
			must(t, l.set.AddDevice("a", "", blank1M))
			total := l.set.Status().Data.Total
			must(t, l.set.Shutdown(root))
			found = readRoot(t, w)
			equals(t, "empty with a device", found.Empty, false)

			l, err = beginWith(w, found.Options...)
			must(t, err)
			equals(t, "list", l.set.List(), []string{"a"})
			equals(t, "total", l.set.Status().Data.Total, total)
			must(t, l.set.DeleteDevice("a", false))
			must(t, l.set.Shutdown(root))
			equals(t, "empty again", readRoot(t, w).Empty, true)
		})
	}
}

// What is on its way counts, and so does what is nobody's.
func TestReadRootIsNotHasty(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("a", "", blank1M))
	_, err := l.set.ActivateDevice("a")
	must(t, err)
	f, err := l.file("a")
	must(t, err)
	must(t, l.set.DeleteDevice("a", false)) // is open, so it is pending
	must(t, f.Close())
	w.Kill()
	equals(t, "empty with a deletion that is pending", readRoot(t, w).Empty, false)
}

func TestReadRootThatIsDamaged(t *testing.T) {
	w := newWorld()
	l := live(t, w)
	must(t, l.set.AddDevice("a", "", blank1M))
	uuid := l.set.PoolUUID()
	must(t, l.set.Shutdown(root))
	for _, path := range simulated.SlotPaths(root) {
		writeDisk(t, w, path, 4096, make([]byte, 4096))
	}
	found := readRoot(t, w)
	equals(t, "found", []any{found.Damage != nil, found.Empty, found.PoolUUID, found.Options}, []any{true, false, uuid, []string(nil)})
}
