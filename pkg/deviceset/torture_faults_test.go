package deviceset_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

// A story is one of each operation, and mounts. Its calls are made again after an
// error, and after the process has been started anew.
var story = func() (calls []operation) {
	calls = append(calls, operations...)
	return append(calls,
		operation{"mount", func(l *life, _ int) error {
			return l.call(l.acked, func(s *deviceset.DeviceSet) error { return s.MountDevice("b", l.mountPoint(), deviceset.MountOpts{}) })
		}},
		operation{"snapshot of a mounted device", func(l *life, i int) error { return l.copy(fmt.Sprint("m", i), "b", "") }},
		operation{"grow a mounted device", func(l *life, _ int) error {
			b := l.acked["b"]
			b.size = 4 * mib
			return l.call(l.acked.with("b", b), func(s *deviceset.DeviceSet) error { return s.GrowDevice("b", 4*mib) })
		}},
		operation{"unmount", func(l *life, _ int) error {
			return l.call(l.acked, func(s *deviceset.DeviceSet) error { return s.UnmountDevice("b", l.mountPoint()) })
		}},
		operation{"make from base", func(l *life, i int) error {
			name := fmt.Sprint("x", i)
			return l.call(l.acked.with(name, expected{size: mib, fs: "ext4", content: 'f'}), func(s *deviceset.DeviceSet) error {
				return s.AddDevice(name, "", map[string]string{"fs": "ext4"})
			})
		}},
	)
}()

// A trial tells the story with one fault, and perhaps with another one after the
// first.
type trial struct {
	first, second *dmfault.Plan
	process       actor
	life          *life
}

// attempts is how often a call is made again before the process is started anew,
// and how often that is done.
const attempts = 3

func (tr *trial) tell(g ground, acked model) error {
	tr.life = &life{ground: g, acked: acked}
	if err := tr.restart(); err != nil {
		return err
	}
	for i, verb := range story {
		if err := tr.until(verb, i); err != nil {
			return fmt.Errorf("%s: %w", verb.name, err)
		}
	}
	tr.second = nil
	if tr.first.Hit() != "" { // whose error may have closed the journal
		if err := tr.restart(); err != nil {
			return err
		}
	}
	tr.process.Break(nil)
	return tr.life.check(tr.life.doubt())
}

// plan returns what breaks the next process: the first plan until it has hit, then
// the second.
func (tr *trial) plan() *dmfault.Plan {
	if tr.first.Hit() == "" {
		return tr.first
	}
	if tr.second != nil && tr.second.Hit() == "" {
		return tr.second
	}
	return nil
}

func (tr *trial) restart() (err error) {
	for range 2 * attempts {
		if tr.life.set != nil {
			tr.life.kill()
			tr.life.set = nil
		}
		tr.process = tr.life.start(tr.plan())
		if tr.life.set, err = tr.life.openSet(tr.process); err == nil {
			return nil
		}
		tr.life.kill()
	}
	return fmt.Errorf("restart: %w", err)
}

// until makes a call until it succeeds.
func (tr *trial) until(verb operation, i int) (err error) {
	before := *tr.life
	for range attempts {
		for range attempts {
			if err = verb.do(tr.life, i); err == nil || errors.Is(err, deviceset.ErrNotFound) && tr.done() {
				return nil
			}
			if errors.Is(err, dmfault.ErrCrashed) || tr.process.Dead() {
				break
			}
			tr.life.acked = before.acked
		}
		tr.life.closePod()
		if err := tr.restart(); err != nil {
			return err
		}
	}
	return err
}

// done reports whether a delete that found nothing had been carried out before.
func (tr *trial) done() bool {
	if tr.life.maybe == nil || len(tr.life.maybe) >= len(tr.life.acked) {
		return false
	}
	tr.life.acked, tr.life.maybe = tr.life.maybe, nil
	tr.life.closePod()
	return true
}

// The story ends well whichever step fails, in each of the four ways.
func TestTortureFaults(t *testing.T) {
	base, acked := prepared(t)
	trials := 0
	for mode := range dmfault.Mode(dmfault.NumModes) {
		for at := 0; ; at++ {
			tr := &trial{first: &dmfault.Plan{At: at, Mode: mode}}
			err := tr.tell(simulatedGround{base.Clone()}, acked)
			if tr.first.Hit() == "" {
				break
			}
			trials++
			if err != nil {
				t.Errorf("%s at step %d, %s: %v", mode, at, tr.first.Hit(), err)
			}
		}
	}
	t.Logf("the story was told %d times", trials)
}

// The same, with a second fault after the first, soon after it or later: in
// recovery, when the call is made again, or when the process starts anew.
func TestTortureFaultsTwice(t *testing.T) {
	base, acked := prepared(t)
	stride, distance := 29, []int{0, 1, 3, 8, 21}
	if os.Getenv("CSI_DMTHIN_TORTURE") == "all" {
		stride = 1
		distance = []int{0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 21, 26, 32, 40, 50}
	}
	trials := 0
	for first := range dmfault.Mode(dmfault.NumModes) {
		for second := range dmfault.Mode(dmfault.NumModes) {
			for _, after := range distance {
				for at := int(first) * 7 % stride; ; at += stride {
					tr := &trial{first: &dmfault.Plan{At: at, Mode: first}, second: &dmfault.Plan{At: after, Mode: second}}
					err := tr.tell(simulatedGround{base.Clone()}, acked)
					if tr.first.Hit() == "" {
						break
					}
					trials++
					if err != nil {
						t.Errorf("%s at step %d, %s, then %s %d steps later, %s: %v",
							first, at, tr.first.Hit(), second, after, tr.second.Hit(), err)
					}
				}
			}
		}
	}
	t.Logf("the story was told %d times", trials)
}

// Whoever makes a device, hears an error and wants it gone instead finds that it
// stays gone, whichever step failed.
func TestTortureRegret(t *testing.T) {
	base, acked := prepared(t)
	create := operation{"create", func(l *life, _ int) error {
		return l.set.AddDevice("x", "c", nil)
	}}
	remove := operation{"delete", func(l *life, _ int) error {
		if err := l.set.DeleteDevice("x", false); !errors.Is(err, deviceset.ErrNotFound) {
			return err
		}
		return nil
	}}
	for mode := range dmfault.Mode(dmfault.NumModes) {
		for at := 0; ; at++ {
			l, err := begin(base.Clone(), acked)
			must(t, err)
			tr := &trial{first: &dmfault.Plan{At: at, Mode: mode}, process: l.machine, life: l}
			l.machine.Break(tr.first)
			err = create.do(l, 0)
			if tr.first.Hit() == "" {
				break
			}
			if err == nil {
				continue
			}
			if err := tr.until(remove, 0); err != nil {
				t.Errorf("%s at step %d, %s: delete: %v", mode, at, tr.first.Hit(), err)
				continue
			}
			must(t, tr.restart())
			if err := l.check(doubt{models: []model{acked}}); err != nil {
				t.Errorf("%s at step %d, %s: %v", mode, at, tr.first.Hit(), err)
			}
		}
	}
}
