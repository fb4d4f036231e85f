package deviceset_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// rareStories lead to rules that the operations of the torture do not lead to. Each
// returns how often which rule decided.
var rareStories = map[string]func(*testing.T) map[deviceset.Rule]int{
	"the making of a pool":              makingStory,
	"a root whose pool was adopted":     otherOwnerStory,
	"a journal that is damaged":         damagedRootStory,
	"a label that is damaged":           damagedLabelStory,
	"a thin device of somebody else's":  orphanStory,
	"a pool that was changed elsewhere": otherGenerationStory,
	"a pool put back within a life":     putBackStory,
	"a delete that somebody else did":   unheardStory,
}

type ruleCount map[deviceset.Rule]int

func (c ruleCount) add(m *simulated.Machine) {
	for r, n := range m.Rules() {
		c[r] += n
	}
}

// makingStory kills the first start after each of its steps, and cuts the power in
// every way.
func makingStory(t *testing.T) map[deviceset.Rule]int {
	rules, states := ruleCount{}, 0
	w := newWorld()
	l, err := beginTraced(w, nil)
	must(t, err)
	for at, step := range l.machine.Steps() {
		w := newWorld()
		_, _ = beginTraced(w, crashAfter(at))
		w.Kill()
		recover := func(w *simulated.World, how string) {
			l, err := begin(w, model{})
			if err == nil {
				err = l.check(l.doubt())
			}
			if err != nil {
				t.Errorf("crash after step %d, %s, %s: %v", at, step, how, err)
			}
			rules.add(l.machine)
			states++
		}
		for _, keep := range subsets(w.Kernel().Unflushed()) {
			cut := w.Clone()
			cut.PowerCut(keep.has)
			recover(cut, fmt.Sprintf("power cut that keeps %s", keep))
		}
		recover(w, "killed")
	}
	t.Logf("%d crashes", states)
	return rules
}

func otherOwnerStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	old := w.Clone()
	w.RemoveRoot(root)
	m := w.Process(nil)
	_, err := deviceset.AdoptOn(m, root, poolOptions, true)
	must(t, err)
	w.Kill()
	// The old root comes back, in place of the new one.
	for _, path := range simulated.SlotPaths(root) {
		w.DiskAt(path).Restore(old.DiskAt(path))
	}
	l, err := begin(w, acked)
	must(t, err)
	if err := l.set.AddDevice("x", "", map[string]string{"fs": "none"}); !errors.Is(err, deviceset.ErrReadOnly) {
		t.Errorf("create: error is %v", err)
	}
	found, err := l.observe()
	must(t, err)
	if found.String() != acked.String() {
		t.Errorf("found %s, want %s", found, acked)
	}
	rules.add(l.machine)
	return rules
}

// damagedRootStory damages every block of the journal's newer file in turn. The
// label has all of it.
func damagedRootStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	for _, path := range simulated.SlotPaths(root) {
		for block := int64(0); block < label/2/4096; block++ {
			damaged := w.Clone()
			if !scribble(t, damaged, path, block*4096) {
				continue
			}
			l, err := begin(damaged, acked)
			rules.add(l.machine)
			switch {
			case errors.Is(err, deviceset.ErrReadOnly):
				t.Errorf("%s, block %d: %v", path, block, err)
			case err != nil:
				t.Errorf("%s, block %d: %v", path, block, err)
			case l.set.Status().ReadOnly != "":
				// The older slot was read, and the label knows better.
				if found, err := l.observe(); err != nil {
					t.Errorf("%s, block %d: found %s, %v", path, block, found, err)
				}
			default:
				if err := l.check(doubt{models: []model{acked}}); err != nil {
					t.Errorf("%s, block %d: %v", path, block, err)
				}
			}
		}
	}
	return rules
}

// scribble overwrites a block that is not blank, and reports whether it did.
func scribble(t *testing.T, w *simulated.World, path string, at int64) bool {
	t.Helper()
	f, err := w.Kernel().Open(w.DiskAt(path).Dev())
	must(t, err)
	before := make([]byte, 4096)
	_, err = f.ReadAt(before, at)
	must(t, err)
	blank := bytes.Equal(before, make([]byte, 4096))
	if !blank {
		_, err = f.WriteAt(bytes.Repeat([]byte{'x'}, 4096), at)
		must(t, err)
	}
	must(t, f.Sync())
	must(t, f.Close())
	return !blank
}

// damagedLabelStory damages every block of the label in turn. The root has all of
// it.
func damagedLabelStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	for block := int64(0); block < label/4096; block++ {
		damaged := w.Clone()
		if !scribble(t, damaged, dataPath, block*4096) {
			continue
		}
		l, err := begin(damaged, acked)
		rules.add(l.machine)
		if err == nil && l.set.Status().ReadOnly == "" {
			err = l.check(doubt{models: []model{acked}})
		}
		if err != nil {
			t.Errorf("block %d: %v", block, err)
		}
	}
	return rules
}

func orphanStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	pool := dm.Pool{Device: dm.ByName(w.Kernel(), l.set.Status().PoolName)}
	for id := dm.DeviceID(0); id < 20; id++ {
		if has, err := pool.Has(id); err != nil {
			t.Fatal(err)
		} else if !has {
			must(t, pool.CreateThin(id))
			break
		}
	}
	must(t, l.set.AddDevice("x", "", map[string]string{"fs": "none", "size": "1M"}))
	if orphans := l.set.Status().Orphans; len(orphans) != 1 {
		t.Errorf("orphans are %v", orphans)
	} else {
		// It is given a name, by which it is deleted.
		must(t, l.set.AdoptDevice(orphans[0], "stranger", 0))
		must(t, l.set.DeleteDevice("stranger", true))
	}
	if err := l.checkPool(); err != nil {
		t.Error(err)
	}
	rules.add(l.machine)
	return rules
}

func otherGenerationStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	pool := dm.Pool{Device: dm.ByName(w.Kernel(), l.set.Status().PoolName)}
	id, err := pool.TransactionID()
	must(t, err)
	must(t, pool.SetTransactionID(id, id+7))
	w.PowerCut(func(dmsim.Page) bool { return true })
	l, err = begin(w, acked)
	must(t, err)
	rules.add(l.machine)
	if err := l.set.DeleteDevice("a", true); !errors.Is(err, deviceset.ErrReadOnly) {
		t.Errorf("delete: error is %v", err)
	}
	if found, err := l.observe(); err != nil || found.String() != acked.String() {
		t.Errorf("found %s, want %s: %v", found, acked, err)
	}
	return rules
}

// putBackStory puts the pool back to a moment at which the process that has it now
// had it already. The end of an operation that came later tells.
func putBackStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	must(t, l.set.SetLabels("b", map[string]string{"k": "1"})) // the raise of the generation is on record
	earlier := w.Clone()
	earlier.PowerCut(func(dmsim.Page) bool { return true })
	for _, name := range []string{"x", "y"} { // the frame of the second has the end of the first
		must(t, l.set.AddDevice(name, "", map[string]string{"fs": "none", "size": "1M"}))
	}
	w.PowerCut(func(dmsim.Page) bool { return true })
	for _, path := range []string{dataPath, metaPath} {
		w.DiskAt(path).Restore(earlier.DiskAt(path))
	}
	l, err = begin(w, acked)
	must(t, err)
	rules.add(l.machine)
	if reason := l.set.Status().ReadOnly; !strings.Contains(reason, "an operation ended after frame") {
		t.Errorf("nothing may be changed because: %q", reason)
	}
	if err := l.set.DeleteDevice("a", true); !errors.Is(err, deviceset.ErrReadOnly) {
		t.Errorf("delete: error is %v", err)
	}
	return rules
}

// unheardStory deletes a device whose thin device somebody else has deleted. No
// message of ours commits then, and yet the label has the frame when the end of the
// delete is on record.
func unheardStory(t *testing.T) map[deviceset.Rule]int {
	rules := ruleCount{}
	w, acked := prepared(t)
	l, err := begin(w, acked)
	must(t, err)
	c, err := l.set.Device("c")
	must(t, err)
	pool := dm.Pool{Device: dm.ByName(w.Kernel(), l.set.Status().PoolName)}
	must(t, pool.Delete(c.ID))
	must(t, l.set.DeleteDevice("c", true))
	l.machine.Trace()
	l.machine.Steps()
	must(t, l.set.SetLabels("b", map[string]string{"k": "1"})) // whose steps tell when its frame is synced
	at := slices.IndexFunc(l.machine.Steps(), func(step string) bool { return strings.HasPrefix(step, "sync slot") })
	w, _ = prepared(t)
	l, err = begin(w, acked)
	must(t, err)
	must(t, dm.Pool{Device: dm.ByName(w.Kernel(), l.set.Status().PoolName)}.Delete(c.ID))
	must(t, l.set.DeleteDevice("c", true))
	l.machine.Break(crashAfter(at))
	if err := l.set.SetLabels("b", map[string]string{"k": "1"}); !errors.Is(err, dmfault.ErrCrashed) {
		t.Fatalf("crash after step %d: error is %v", at, err)
	}
	w.PowerCut(func(dmsim.Page) bool { return false })
	l, err = begin(w, acked.without("c"))
	must(t, err)
	rules.add(l.machine)
	if reason := l.set.Status().ReadOnly; reason != "" {
		t.Errorf("nothing may be changed because: %s", reason)
	}
	return rules
}
