package deviceset_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A half is one of two calls that are made at once: what it is called, the call, and
// what it makes of a model.
type half struct {
	name string
	call verb
	does func(model) model
}

// change changes one device of a model, if it is there.
func change(name string, do func(*expected)) func(model) model {
	return func(m model) model {
		e, ok := m[name]
		if !ok {
			return m
		}
		do(&e)
		return m.with(name, e)
	}
}

func adds(name, source string, more int64) func(model) model {
	return func(m model) model {
		e := expected{size: mib, fs: "none"}
		if source != "" {
			e = m[source]
			e.label, e.size = "", e.size+more
		}
		return m.with(name, e)
	}
}

func removes(name string) func(model) model {
	return func(m model) model { return m.without(name) }
}

// halves are the ten kinds of operations, on devices named after who is at it.
func halves(who string) []half {
	add := func(name, source string, options map[string]string) verb {
		return func(s *deviceset.DeviceSet) error { return s.AddDevice(name, source, options) }
	}
	return []half{
		{"create", add(who+"n", "", map[string]string{"fs": "none", "size": "1M"}), adds(who+"n", "", 0)},
		{"format", func(s *deviceset.DeviceSet) error { return s.FormatDevice("b", filesystem.Ext4, nil) },
			change("b", func(e *expected) { e.fs, e.content = "ext4", 'f' })},
		{"snapshot", add(who+"s", "c", nil), adds(who+"s", "c", 0)},
		{"snapshot of an active device", add(who+"t", "a", map[string]string{"size": "3M"}), func(m model) model {
			e := m["a"]
			e.size = 3 * mib
			return m.with(who+"t", e)
		}},
		{"larger clone", add(who+"l", "c", map[string]string{"size": "2M"}), adds(who+"l", "c", mib)},
		{"grow", func(s *deviceset.DeviceSet) error { return s.GrowDevice("a", 2*mib) },
			change("a", func(e *expected) { e.size = 2 * mib })},
		{"delete", func(s *deviceset.DeviceSet) error { return s.DeleteDevice("c", false) }, removes("c")},
		{"delete the same", func(s *deviceset.DeviceSet) error { return s.DeleteDevice("c", true) }, removes("c")},
		{"label", func(s *deviceset.DeviceSet) error { return s.SetLabels("b", map[string]string{"k": "1"}) },
			change("b", func(e *expected) { e.label = "1" })},
		{"resize the pool", func(s *deviceset.DeviceSet) error { return s.ResizePool(dataSize + mib) },
			func(m model) model { return m }},
	}
}

// Two calls at once end as if they had been made one after the other, also where the
// process dies while they are at it: all pairs, and all steps to die after. Which
// of the two takes which step is left to chance.
func TestTorturePairs(t *testing.T) {
	base, acked := prepared(t)
	crashes := 0
	for i, one := range halves("1") {
		for j, other := range halves("2") {
			if j < i {
				continue
			}
			for at := 0; ; at++ {
				l, err := begin(base.Clone(), acked)
				must(t, err)
				must(t, l.write("a", 7))
				l.world.DiskAt(dataPath).Grow(dm.SectorsIn(dataSize + mib))
				plan := crashAfter(at)
				l.machine.Break(plan)
				models := l.atOnce(one, other)
				hit := plan.Hit()
				crashed := plan.Crashed()
				if l.machine.Break(nil); crashed {
					l.world.Kill()
				}
				where := fmt.Sprintf("%s and %s, crash after step %d, %s", one.name, other.name, at, hit)
				if err := l.checkPair(crashed, models); err != nil {
					t.Errorf("%s: %v", where, err)
				}
				if !crashed {
					break
				}
				crashes++
			}
		}
	}
	t.Logf("%d crashes", crashes)
}

// checkPair checks what two calls left, in every way in which the power can be cut
// if the process died.
func (l *life) checkPair(crashed bool, models []model) error {
	if !crashed {
		return l.check(doubt{models: models})
	}
	for _, keep := range subsets(l.world.Kernel().Unflushed()) {
		w := l.world.Clone()
		w.PowerCut(keep.has)
		after, err := begin(w, nil)
		if err == nil {
			err = after.check(doubt{models: models})
		}
		if err != nil {
			return fmt.Errorf("keeping %s: %w", keep, err)
		}
	}
	after, err := begin(l.world, nil)
	if err == nil {
		err = after.check(doubt{models: models})
	}
	return err
}

// atOnce makes two calls at once and returns what may have come of them.
func (l *life) atOnce(calls ...half) (models []model) {
	errs := make([]error, len(calls))
	var done sync.WaitGroup
	for i, c := range calls {
		done.Go(func() { errs[i] = c.call(l.set) })
	}
	done.Wait()
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		last := []model{l.acked}
		for _, i := range order {
			last = outcomes(last, calls[i], errs[i])
		}
		models = append(models, last...)
	}
	return slices.CompactFunc(models, func(a, b model) bool { return a.String() == b.String() })
}

// outcomes are the models after a call: with what it does if it was answered, also
// without if it was not, and without if it was refused.
func outcomes(before []model, c half, err error) (after []model) {
	for _, m := range before {
		if err == nil || errors.Is(err, dmfault.ErrCrashed) {
			after = append(after, c.does(m))
		}
		if err != nil {
			after = append(after, m)
		}
	}
	return after
}

// Snapshots of one active device, all wanted at once, suspend it one after the other:
// to the kernel a second suspend is none, and the first resume would end both.
func TestTortureSnapshotsAtOnce(t *testing.T) {
	base, acked := prepared(t)
	l, err := begin(base, acked)
	must(t, err)
	must(t, l.write("a", 7))
	l.machine.Trace()
	var done sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		done.Go(func() { errs[i] = l.set.AddDevice(fmt.Sprint("s", i), "a", nil) })
	}
	done.Wait()
	must(t, errors.Join(errs...))
	suspended := 0
	for _, step := range l.machine.Steps() {
		switch {
		case strings.HasPrefix(step, "suspend "):
			suspended++
		case strings.HasPrefix(step, "resume "):
			suspended--
		}
		if suspended < 0 || suspended > 1 {
			t.Fatalf("suspended %d times at step %q", suspended, step)
		}
	}
}
