package deviceset_test

import (
	"fmt"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// Whichever step of making a pool fails, or a process dies at, the next start makes it.
// A start that fails leaves no device behind.
func TestKernelMakeFails(t *testing.T) {
	few := []dmfault.Mode{dmfault.ErrorBefore, dmfault.CrashAfter}
	for _, kind := range []struct {
		name  string
		modes []dmfault.Mode
		pool  func(l *kernelLab) (options []string)
	}{
		{"disks", append(few, dmfault.ErrorAfter, dmfault.CrashBefore), func(l *kernelLab) []string {
			_, _, options := l.onDisks(64*mib, 8*mib)
			return options
		}},
		{"files", few, func(l *kernelLab) []string { return []string{"dm.loopdatasize=64M", "dm.loopmetadatasize=4M"} }},
		{"an existing pool", few, func(l *kernelLab) []string {
			name, _ := l.existing()
			return []string{"dm.thinpooldev=" + name}
		}},
	} {
		for _, mode := range kind.modes {
			t.Run(kind.name+", "+mode.String(), func(t *testing.T) {
				eachStep(t, mode, func(l *kernelLab, plan *dmfault.Plan) { l.makeBroken(kind.pool(l), plan) })
			})
		}
	}
}

// eachStep tells a story, each time on a lab of its own, with the first step of it
// failing, with the second, and so on to the last.
func eachStep(t *testing.T, mode dmfault.Mode, story func(*kernelLab, *dmfault.Plan)) {
	for at := 0; ; at++ {
		plan := &dmfault.Plan{At: at, Mode: mode}
		passed := t.Run(fmt.Sprint("step ", at), func(t *testing.T) { story(newKernelLab(t), plan) })
		if !passed || plan.Hit() == "" {
			t.Logf("%d steps", at)
			return
		}
	}
}

// makeBroken makes a pool while a plan breaks it, and then without.
func (l *kernelLab) makeBroken(options []string, plan *dmfault.Plan) {
	l.Helper()
	before, err := dmtest.DevicesAndLoops(l.kernel)
	l.must(err)
	p := l.newProcess()
	p.breakWith(plan)
	s, err := deviceset.OpenQuiet(p, l.root, mib, options...)
	p.breakWith(nil)
	switch {
	case err == nil && plan.Crashed():
		p.die(s)
	case err == nil:
		l.must(s.Shutdown(l.root))
	case plan.Crashed():
		p.die(nil)
	default:
		l.must(p.Close())
		if plan.Mode == dmfault.ErrorAfter {
			break // it was made, and nobody heard of it
		}
		l.waitFor("nothing to be left of "+plan.Hit(), func() bool {
			after, err := dmtest.DevicesAndLoops(l.kernel)
			l.must(err)
			return len(after) <= len(before)
		})
	}
	s, err = deviceset.OpenQuiet(l.newProcess(), l.root, mib, options...)
	if err != nil {
		l.Fatalf("%v of %q: %v", plan.Mode, plan.Hit(), err)
	}
	l.must(s.CreateDevice("a", "", newBlank))
	l.runs()
	l.equal(len(l.thins(s)), 2)
	l.equal(s.Status().ReadOnly, "")
	l.must(s.Shutdown(l.root))
}
