package deviceset_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

var (
	aheadOptions = slices.Concat(loopOptions, []string{"dm.preallocate=true"})
	dataFile     = root + "/devicemapper/data"
)

// metaFileSize is that of the metadata's file by loopOptions.
const metaFileSize = 4 * mib

// roomy is a machine whose file system keeps exactly the part that it must, or a byte
// less, when a pool of loopOptions is allocated.
func roomy(lacks int64) *simulated.World {
	w := newWorld()
	w.SetTotal(1000 * mib)
	w.SetFree(150*mib + dataSize + metaFileSize - lacks)
	return w
}

// given returns how many bytes the data file takes.
func given(t testing.TB, w *simulated.World) int64 {
	t.Helper()
	bytes, err := w.Process(nil).Allocated(dataFile)
	must(t, err)
	return bytes
}

// says fails unless err has the cause and the words.
func says(t testing.TB, err, cause error, words ...string) {
	t.Helper()
	refuses(t, err, cause)
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// A pool that is allocated ahead has all of its data, whoever fills the file system.
func TestPreallocatedPool(t *testing.T) {
	w := roomy(0)
	l, err := beginWith(w, aheadOptions...)
	must(t, err)
	equals(t, "given", given(t, w), int64(dataSize))
	w.SetFree(0)
	st := l.set.Status()
	equals(t, "available", st.Data.Available, st.Data.Total-st.Data.Used)
	equals(t, "warnings", len(st.Warnings), 0)
	room, err := l.set.Room()
	must(t, err)
	equals(t, "room", uint64(room), st.Data.Available)
	must(t, l.set.AddDevice("a", "", blank1M))
	_, table := l.poolTable(t)
	equals(t, "discards stop at the pool", table.NoDiscardPassdown, true)
	must(t, l.set.Shutdown(root))
	l, err = beginWith(w, aheadOptions...) // which lacks nothing, so no room is needed
	must(t, err)
	equals(t, "warnings", l.set.Status().Warnings, []string(nil))
	must(t, l.set.Shutdown(root))
}

// What would leave too little to others is not made, and nothing is left of it.
func TestPreallocationIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		world *simulated.World
		words []string
	}{
		"too little stays free": {roomy(1), []string{dataFile, fmt.Sprint(dataSize), fmt.Sprint(150*mib + dataSize + metaFileSize - 1), "15 %", "dm.loopdatasize", "dm.preallocate=false"}},
		"no such thing":         {roomy(0), []string{dataFile, "not supported", "dm.preallocate=false"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := test.world
			if name == "no such thing" {
				w.RefuseBlocks()
			}
			_, err := beginWith(w, aheadOptions...)
			says(t, err, deviceset.ErrNoSpace, test.words...)
			equals(t, "files", w.DiskAt(dataFile) == nil, true)
			l, err := beginWith(w, loopOptions...) // that is the way out
			must(t, err)
			equals(t, "given", given(t, w), int64(0))
			must(t, l.set.Shutdown(root))
		})
	}
}

// A sparse pool of before gets what it lacks when there is room, and is served before.
func TestSparsePoolIsAllocatedLater(t *testing.T) {
	w := roomy(1)
	l, err := beginWith(w, loopOptions...)
	must(t, err)
	must(t, l.set.AddDevice("a", "", blank1M))
	must(t, l.set.Shutdown(root))

	larger := slices.Concat(aheadOptions, []string{"dm.loopdatasize=20M"})
	l, err = beginWith(w, larger...)
	must(t, err)
	st := l.set.Status()
	equals(t, "total", st.Data.Total, uint64(dataSize))
	equals(t, "warnings", len(st.Warnings), 1)
	equals(t, "says why", strings.Contains(st.Warnings[0], "dm.preallocate=false"), true)
	equals(t, "list", l.set.List(), []string{"a"})
	must(t, l.set.AddDevice("b", "", blank1M))
	must(t, l.set.Shutdown(root))

	w.SetFree(500 * mib)
	l, err = beginWith(w, larger...)
	must(t, err)
	st = l.set.Status()
	equals(t, "total", st.Data.Total, uint64(20*mib))
	equals(t, "warnings", len(st.Warnings), 0)
	equals(t, "given", given(t, w), int64(20*mib))
	equals(t, "list", l.set.List(), []string{"a", "b"})
	must(t, l.set.Shutdown(root))
}

// Where the file system gives nothing ahead, a pool of before is served as it is.
func TestSparsePoolThatCannotBeAllocated(t *testing.T) {
	w := newWorld()
	l, err := beginWith(w, loopOptions...)
	must(t, err)
	must(t, l.set.Shutdown(root))
	w.RefuseBlocks()
	l, err = beginWith(w, aheadOptions...)
	must(t, err)
	equals(t, "warnings", len(l.set.Status().Warnings), 1)
	refuses(t, l.set.ResizePool(2*dataSize), deviceset.ErrNoSpace)
	must(t, l.set.Shutdown(root))
}

// A pool that is active already passes no discard down from then on.
func TestPreallocationOfALivePool(t *testing.T) {
	w := newWorld()
	l, err := beginWith(w, loopOptions...)
	must(t, err)
	must(t, l.set.AddDevice("a", "", blank1M))
	_, err = l.set.ActivateDevice("a")
	must(t, err)
	w.Kill()
	l, err = beginWith(w, aheadOptions...)
	must(t, err)
	_, table := l.poolTable(t)
	equals(t, "discards stop at the pool", table.NoDiscardPassdown, true)
	equals(t, "given", given(t, w), int64(dataSize))
	equals(t, "active", l.isActive(t, "a"), true)
	must(t, l.set.DeactivateDevice("a"))
	must(t, l.set.Shutdown(root))
}

func TestPreallocatedResizeIsRefused(t *testing.T) {
	w := roomy(0)
	l, err := beginWith(w, aheadOptions...)
	must(t, err)
	before := l.set.Status().Data
	says(t, l.set.ResizePool(2*dataSize), deviceset.ErrNoSpace, dataFile, "15 %")
	equals(t, "data", l.set.Status().Data, before)
	equals(t, "given", given(t, w), int64(dataSize))
	must(t, l.set.Shutdown(root))
}

// Whatever stops a growth, the pool never has more than its file was given, and the
// growth ends when it is asked for again.
func TestPreallocatedResizeStops(t *testing.T) {
	for mode := range dmfault.Mode(dmfault.NumModes) {
		for _, reboots := range []bool{false, true} {
			at := 0
			for ; ; at++ {
				w := newWorld()
				l, err := beginWith(w, aheadOptions...)
				must(t, err)
				must(t, l.set.AddDevice("a", "", blank1M))
				plan := &dmfault.Plan{At: at, Mode: mode}
				l.machine.Break(plan)
				_ = l.set.ResizePool(2 * dataSize)
				if plan.Hit() == "" {
					break
				}
				checkGiven(t, w, l)
				w.Kill()
				if reboots {
					rebooted(w)
				}
				l, err = beginWith(w, aheadOptions...)
				must(t, err)
				checkGiven(t, w, l)
				equals(t, "list", l.set.List(), []string{"a"})
				must(t, l.set.ResizePool(2*dataSize))
				equals(t, plan.Hit(), l.set.Status().Data.Total, uint64(2*dataSize))
				checkGiven(t, w, l)
				must(t, l.set.Shutdown(root))
			}
			t.Logf("%s: %d steps", mode, at)
		}
	}
}

func checkGiven(t testing.TB, w *simulated.World, l *life) {
	t.Helper()
	if l.machine.Dead() {
		return
	}
	if total := l.set.Status().Data.Total; int64(total) > given(t, w) {
		t.Fatalf("the pool has %d bytes, its file %d", total, given(t, w))
	}
}
