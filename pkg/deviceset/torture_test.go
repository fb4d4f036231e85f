package deviceset_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// The torture tries what a crash can leave: every sequence of operations, killed or
// cut off from power after every step of its last one, with every part of what was
// not flushed; then the same again in the midst of recovery; and all of it also
// with the root directory lost, or one of the two copies of the journal put back to
// an earlier state. What is found must be what was acknowledged, or that and the one
// call that was not answered.
//
// CSI_DMTHIN_TORTURE says how much of it: "all", or the part of sequences as in
// "1/50", which is the default.

// A torture counts what it has seen.
type torture struct {
	base    *simulated.World
	acked   model
	mu      sync.Mutex
	seen    map[stateKey]struct{}
	rules   map[deviceset.Rule]int
	states  int // that were looked at
	crashes int
	failed  []string
	deep    bool // crash in recovery too
}

// A stateKey is what recovery depends on.
type stateKey struct {
	digest uint64
	models string
	what   string
}

const mostSubsets = 64

func TestTorture(t *testing.T) {
	base, acked := prepared(t)
	tt := &torture{base: base, acked: acked, seen: map[stateKey]struct{}{}, rules: map[deviceset.Rule]int{}, deep: true}
	part, of := tortureSlice(t)
	begin := time.Now()
	var work sync.WaitGroup
	sequences := make(chan []int)
	for range 2 {
		work.Go(func() {
			for s := range sequences {
				tt.sequence(s)
			}
		})
	}
	n := 0
	for _, s := range allSequences(len(operations), 3) {
		// The short ones are always told, and of the long ones a slice.
		if len(s) < 3 || n%of < part {
			sequences <- s
		}
		if len(s) == 3 {
			n++
		}
	}
	close(sequences)
	work.Wait()
	t.Logf("%d crashes left %d distinct states, all recovered, in %v", tt.crashes, tt.states, time.Since(begin).Round(time.Second))
	for i, f := range tt.failed {
		if i == 10 {
			t.Errorf("and %d more", len(tt.failed)-i)
			break
		}
		t.Error(f)
	}
	tt.others(t)
	for _, r := range deviceset.Rules {
		t.Logf("%8d times: %s", tt.rules[r], r)
		if tt.rules[r] == 0 {
			t.Errorf("no crash was decided by the rule %q", r)
		}
	}
}

// tortureSlice returns which part of the long sequences is told.
func tortureSlice(t *testing.T) (part, of int) {
	switch text := os.Getenv("CSI_DMTHIN_TORTURE"); text {
	case "":
		return 1, 100
	case "all":
		return 1, 1
	default:
		if _, err := fmt.Sscanf(text, "%d/%d", &part, &of); err != nil || of < 1 {
			t.Fatalf("CSI_DMTHIN_TORTURE=%q: want all, or a part such as 1/50", text)
		}
		return part, of
	}
}

// allSequences returns all sequences of up to length of n things, short ones first.
func allSequences(n, length int) (all [][]int) {
	last := [][]int{nil}
	for range length {
		var next [][]int
		for _, s := range last {
			for i := range n {
				next = append(next, append(slices.Clone(s), i))
			}
		}
		all = append(all, next...)
		last = next
	}
	// Neighbours in the list differ in all of their operations, so that a slice of
	// it has some of everything.
	random := rand.New(rand.NewPCG(1, 1))
	long := all[len(all)-len(last):]
	random.Shuffle(len(long), func(i, j int) { long[i], long[j] = long[j], long[i] })
	return all
}

func (tt *torture) fail(s []int, format string, args ...any) {
	var names []string
	for _, i := range s {
		names = append(names, operations[i].name)
	}
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.failed = append(tt.failed, strings.Join(names, ", ")+": "+fmt.Sprintf(format, args...))
}

// unseen notes a state and reports whether it is new.
func (tt *torture) unseen(w *simulated.World, models []model, what string) bool {
	key := stateKey{w.Kernel().Digest(), fmt.Sprint(models), what}
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.crashes++
	if _, ok := tt.seen[key]; ok {
		return false
	}
	tt.seen[key] = struct{}{}
	tt.states++
	return true
}

func (tt *torture) count(m *simulated.Machine) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for r, n := range m.Rules() {
		tt.rules[r] += n
	}
}

// run lives through a sequence, of which the last operation meets a plan.
func (tt *torture) run(s []int, plan *dmfault.Plan) (*life, error) {
	l, err := begin(tt.base.Clone(), tt.acked)
	if err != nil {
		return l, err
	}
	for i, kind := range s {
		if i == len(s)-1 {
			l.machine.Break(plan)
			if plan == nil {
				l.machine.Trace()
			}
		}
		if err := operations[kind].do(l, i); err != nil {
			return l, err
		}
	}
	return l, nil
}

// sequence crashes the last operation of a sequence after each of its steps.
func (tt *torture) sequence(s []int) {
	whole, err := tt.run(s, nil)
	if err != nil {
		tt.fail(s, "without any fault: %v", err)
		return
	}
	steps := whole.machine.Steps()
	if err := whole.check(whole.doubt()); err != nil {
		tt.fail(s, "without any fault: %v", err)
		return
	}
	for at, step := range steps {
		if !changes(step) {
			continue
		}
		l, err := tt.run(s, crashAfter(at))
		if !errors.Is(err, dmfault.ErrCrashed) && err != nil {
			tt.fail(s, "crash after step %d, %s: error is %v", at, step, err)
			continue
		}
		where := fmt.Sprintf("crash after step %d, %s", at, step)
		l.world.Kill()
		tt.cutOff(s, l, where)
		tt.killed(s, l, where)
	}
}

// killed recovers where the kernel lives on.
func (tt *torture) killed(s []int, l *life, where string) {
	pod := l.pod
	after, err := begin(l.world, l.acked)
	after.pod = pod
	if err == nil {
		err = after.check(l.doubt())
	}
	tt.count(after.machine)
	if err != nil {
		tt.fail(s, "%s, killed: %v", where, err)
	}
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.crashes++
	tt.states++
}

// cutOff recovers from every way in which the power can be cut now.
func (tt *torture) cutOff(s []int, l *life, where string) {
	for _, keep := range subsets(l.world.Kernel().Unflushed()) {
		w := l.world.Clone()
		w.PowerCut(keep.has)
		at := fmt.Sprintf("%s, power cut that keeps %s", where, keep)
		tt.rootKept(s, w, l.doubt(), at, tt.deep)
		tt.rootLost(s, w, l.doubt(), at)
		tt.rootOlder(s, w, l.doubt(), at)
		tt.poolOlder(s, w, l.doubt(), at)
	}
}

// rootKept recovers from a state, and from crashes of that recovery.
func (tt *torture) rootKept(s []int, w *simulated.World, in doubt, where string, deep bool) {
	if !tt.unseen(w, in.models, "kept") {
		return
	}
	l, err := beginTraced(w.Clone(), nil)
	steps := l.machine.Steps()
	if err == nil {
		err = l.check(in)
	}
	tt.count(l.machine)
	if err != nil {
		tt.fail(s, "%s: %v", where, err)
		return
	}
	if !deep {
		return
	}
	for at, step := range steps {
		if !changes(step) {
			continue
		}
		plan := crashAfter(at)
		crashed, _ := beginTraced(w.Clone(), plan)
		if !plan.Crashed() {
			continue // it ended before
		}
		crashed.world.Kill()
		for _, keep := range subsets(crashed.world.Kernel().Unflushed()) {
			again := crashed.world.Clone()
			again.PowerCut(keep.has)
			tt.rootKept(s, again, in, fmt.Sprintf("%s; recovery crashed after step %d, %s, keeping %s", where, at, step, keep), false)
		}
		tt.count(crashed.machine)
	}
}

// beginTraced opens the set by a process of which steps may fail from the start.
func beginTraced(w *simulated.World, plan *dmfault.Plan) (*life, error) {
	l := &life{ground: simulatedGround{w}, world: w, machine: w.Process(plan)}
	l.machine.Trace()
	var err error
	if l.set, err = deviceset.OpenQuiet(l.machine, root, label, poolOptions...); err == nil {
		l.set.Finish()
	}
	return l, err
}

// rootLost adopts the pool after the journal's files were lost.
func (tt *torture) rootLost(s []int, w *simulated.World, in doubt, where string) {
	w = w.Clone()
	w.RemoveRoot(root)
	if !tt.unseen(w, in.models, "lost") {
		return
	}
	before := w.Kernel().Digest()
	if _, err := deviceset.OpenQuiet(w.Process(nil), root, label, poolOptions...); !errors.Is(err, deviceset.ErrForeign) {
		tt.fail(s, "%s, root lost: opened with %v", where, err)
		return
	}
	w.Kill()
	w.PowerCut(func(dmsim.Page) bool { return true })
	if w.Kernel().Digest() != before {
		tt.fail(s, "%s, root lost: a start that was refused changed the disks", where)
	}
	// A crash at each step of the adoption, and then all of it.
	for at := 0; ; at++ {
		m := w.Process(crashAfter(at))
		m.Trace()
		_, err := deviceset.AdoptOn(m, root, poolOptions, true)
		steps := m.Steps()
		tt.count(m)
		w.Kill()
		w.PowerCut(func(dmsim.Page) bool { return at%2 == 0 })
		if err == nil && len(steps) <= at {
			break
		}
	}
	tt.adopted(s, w, in, where+", root lost")
}

// adopted checks a pool that was adopted: what was acknowledged is there, also
// where the one call in doubt was a delete that had begun.
func (tt *torture) adopted(s []int, w *simulated.World, in doubt, where string) {
	l, err := begin(w, nil)
	if err != nil {
		tt.fail(s, "%s, adopted: %v", where, err)
		return
	}
	found, err := l.observe()
	if err == nil && l.set.Status().ReadOnly != "" {
		err = errors.New(l.set.Status().ReadOnly)
	}
	if err == nil {
		err = errors.Join(matchesAdopted(found, in.models), l.checkPool(), l.checkDevices(), l.checkAlive())
	}
	tt.count(l.machine)
	if err != nil {
		tt.fail(s, "%s, adopted: %v", where, err)
	}
}

// matchesAdopted compares what was adopted with the models. An adoption believes a
// size and a content that it finds; what was formatted counts as that.
func matchesAdopted(found model, models []model) error {
	for _, m := range models {
		same := len(found) == len(m)
		for name, want := range m {
			have, ok := found[name]
			same = same && ok && have.size == want.size && have.content == want.content && have.label == want.label
		}
		if same {
			return nil
		}
	}
	return fmt.Errorf("found\n  %s\nwant one of\n  %v", found, models)
}

// rootOlder puts the journal's files back to where the process began.
func (tt *torture) rootOlder(s []int, w *simulated.World, in doubt, where string) {
	w = w.Clone()
	for _, path := range simulated.SlotPaths(root) {
		w.DiskAt(path).Restore(tt.base.DiskAt(path))
	}
	tt.refused(s, w, in, "root older", where)
}

// poolOlder puts the pool's disks back to where the process began.
func (tt *torture) poolOlder(s []int, w *simulated.World, in doubt, where string) {
	w = w.Clone()
	for _, path := range []string{dataPath, metaPath} {
		w.DiskAt(path).Restore(tt.base.DiskAt(path))
	}
	if !tt.unseen(w, in.models, "pool older") {
		return
	}
	tt.readOnly(s, w, where+", pool older")
}

// refused expects that nothing is changed, and that adopting the pool brings
// everything back.
func (tt *torture) refused(s []int, w *simulated.World, in doubt, what, where string) {
	if !tt.unseen(w, in.models, what) {
		return
	}
	if tt.readOnly(s, w, where+", "+what) {
		if _, err := deviceset.AdoptOn(w.Process(nil), root, poolOptions, true); err != nil {
			tt.fail(s, "%s, %s: adopt: %v", where, what, err)
			return
		}
		w.Kill()
		tt.adopted(s, w, in, where+", "+what)
	}
}

// readOnly expects a set that changes nothing, whatever it is asked.
func (tt *torture) readOnly(s []int, w *simulated.World, where string) bool {
	l, err := begin(w, nil)
	tt.count(l.machine)
	if err != nil {
		tt.fail(s, "%s: %v", where, err)
		return false
	}
	before := w.Kernel().Digest()
	for what, err := range map[string]error{
		"create": l.set.AddDevice("x", "", map[string]string{"fs": "none", "size": "1M"}),
		"delete": l.set.DeleteDevice("a", false),
		"grow":   l.set.GrowDevice("a", 100*mib),
	} {
		if !errors.Is(err, deviceset.ErrReadOnly) && !errors.Is(err, deviceset.ErrNotFound) {
			tt.fail(s, "%s: %s: error is %v", where, what, err)
			return false
		}
	}
	if l.set.Status().ReadOnly == "" {
		tt.fail(s, "%s: the difference was not noticed", where)
		return false
	}
	if w.Kernel().Digest() != before {
		tt.fail(s, "%s: something was changed", where)
	}
	w.Kill()
	w.PowerCut(func(dmsim.Page) bool { return true })
	return true
}

// A subset of pages that a power cut keeps.
type subset struct {
	pages []dmsim.Page
	bits  uint64
}

func (s subset) has(p dmsim.Page) bool {
	at := slices.Index(s.pages, p)
	return at >= 0 && s.bits>>(at%64)&1 != 0
}

func (s subset) String() string { return strconv.FormatUint(s.bits, 2) }

// subsets returns all subsets of at most six pages, else none, all, and random ones.
func subsets(pages []dmsim.Page) (all []subset) {
	if len(pages) <= 6 {
		for bits := range uint64(1) << len(pages) {
			all = append(all, subset{pages, bits})
		}
		return all
	}
	random := rand.New(rand.NewPCG(uint64(len(pages)), 7))
	all = append(all, subset{pages, 0}, subset{pages, ^uint64(0)})
	for len(all) < mostSubsets {
		all = append(all, subset{pages, random.Uint64()})
	}
	return all
}

// others tells the stories in which the rules decide that no sequence leads to.
func (tt *torture) others(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(rareStories)) {
		t.Run(name, func(t *testing.T) {
			for r, n := range rareStories[name](t) {
				tt.rules[r] += n
			}
		})
	}
}
