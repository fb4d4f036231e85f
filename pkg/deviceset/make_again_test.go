package deviceset_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
)

// A making that was cut short goes on on its own disks alone: after a boot, their names
// may be those of others.
func TestMakingGoesOnOnItsOwnDisks(t *testing.T) {
	theirs := []byte(strings.Repeat("precious", 512))
	l, err := beginTraced(newWorld(), nil)
	must(t, err)
	cut := 0
	for at := range l.machine.Steps() {
		w := newWorld()
		_, _ = beginTraced(w, crashAfter(at))
		rebooted(w)
		if !goesOn(t, w.Clone(), poolOptions...) {
			continue
		}
		cut++
		for _, path := range []string{dataPath, metaPath} {
			other := w.Clone()
			other.NewDisk(path, other.DiskAt(path).Size().Bytes())
			writeDisk(t, other, path, 0, theirs)
			_, err := begin(other, model{})
			if !bytes.Equal(readDisk(t, other, path, 0, int64(len(theirs))), theirs) {
				t.Errorf("cut short after step %d: %s was overwritten (%v)", at, path, err)
			}
			refuses(t, err, deviceset.ErrForeign)
		}
		elsewhere := w.Clone()
		elsewhere.NewDisk("/dev/elsewhere", dataSize)
		before := elsewhere.Kernel().Digest()
		_, err := beginWith(elsewhere, "dm.datadev=/dev/elsewhere", "dm.metadatadev="+metaPath)
		refuses(t, err, deviceset.ErrInvalid)
		equals(t, "changed", elsewhere.Kernel().Digest() != before, false)
	}
	if cut < 10 {
		t.Errorf("%d makings were cut short", cut)
	}
}

// goesOn reports whether the next start goes on with a making, and fails unless it then
// has a pool that works.
func goesOn(t *testing.T, w *simulated.World, options ...string) bool {
	t.Helper()
	l, err := beginWith(w, options...)
	must(t, err)
	must(t, l.checkAlive())
	return l.machine.Rules()[deviceset.RuleMakeAgain] > 0
}

// Nor does one on a pool of somebody else's go on on another, or on one that has been
// used since.
func TestMakingGoesOnOnItsOwnPool(t *testing.T) {
	cut := 0
	for at := 0; ; at++ {
		w := newWorld()
		pool := existingPool(t, w, "theirs")
		m := w.Process(crashAfter(at))
		_, err := deviceset.OpenQuiet(m, root, label, existingOptions...)
		if err == nil {
			break
		}
		w.Kill()
		if !goesOn(t, w.Clone(), existingOptions...) {
			continue
		}
		cut++
		other := w.Clone()
		before := other.Kernel().Digest()
		_, err = beginWith(other, "dm.thinpooldev=another")
		refuses(t, err, deviceset.ErrInvalid)
		equals(t, "changed", other.Kernel().Digest() != before, false)
		must(t, pool.CreateThin(5))
		before = w.Kernel().Digest()
		_, err = beginWith(w, existingOptions...)
		refuses(t, err, deviceset.ErrForeign)
		equals(t, "changed", w.Kernel().Digest() != before, false)
	}
	if cut < 5 {
		t.Errorf("%d makings were cut short", cut)
	}
}
