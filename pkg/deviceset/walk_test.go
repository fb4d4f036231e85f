package deviceset_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A walk does what comes to its mind, on a machine where processes are killed, the
// power fails and steps answer errors, and holds the set to the model all the way.
// CSI_DMTHIN_SEED takes the same way again, CSI_DMTHIN_STEPS goes further.
func TestWalk(t *testing.T) {
	seed, steps := number("CSI_DMTHIN_SEED", time.Now().UnixNano()), number("CSI_DMTHIN_STEPS", 10_000)
	t.Logf("CSI_DMTHIN_SEED=%d CSI_DMTHIN_STEPS=%d", seed, steps)
	base, acked := prepared(t)
	w := &walker{Rand: rand.New(rand.NewPCG(uint64(seed), 1)), life: &life{ground: simulatedGround{base}, world: base, acked: acked}}
	must(t, w.restart())
	for step := range steps {
		if err := w.step(); err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, step, err)
		}
	}
	w.world.Kill()
	must(t, w.recover())
	t.Logf("%v", w.counts)
}

func number(variable string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(variable), 10, 64); err == nil {
		return n
	}
	return otherwise
}

type walker struct {
	*rand.Rand
	*life
	plan   *dmfault.Plan
	counts struct{ calls, errors, kills, cuts, recoveries int }
}

// step is a call, or something that happens to the machine.
func (w *walker) step() error {
	switch w.IntN(40) {
	case 0:
		w.counts.kills++
		w.world.Kill()
		return w.recover()
	case 1:
		w.counts.cuts++
		w.world.PowerCut(func(dmsim.Page) bool { return w.IntN(2) == 0 })
		w.pod = nil
		return w.recover()
	case 2:
		err := w.set.Shutdown(root)
		if w.plan != nil && w.plan.Hit() != "" {
			err = nil // it may have met the fault
		}
		w.world.Kill()
		return errors.Join(err, w.recover())
	case 3:
		w.plan = &dmfault.Plan{At: w.IntN(12), Mode: dmfault.Mode(w.IntN(dmfault.NumModes))}
		w.machine.Break(w.plan)
	}
	w.counts.calls++
	err := w.act()
	hit := w.plan != nil && w.plan.Hit() != ""
	switch {
	case hit && w.machine.Dead():
		if w.IntN(2) == 0 {
			w.world.PowerCut(func(dmsim.Page) bool { return w.IntN(2) == 0 })
		}
		w.world.Kill()
		return w.recover()
	case hit && err != nil:
		w.counts.errors++
		w.world.Kill() // an error may have closed the journal
		return w.recover()
	case err != nil && !expectedError(err):
		return err
	case err != nil:
		w.maybe = nil // it was refused, and changed nothing
	}
	return nil
}

// expectedError reports whether an error is one of those that tell what cannot be.
func expectedError(err error) bool {
	for _, e := range []error{
		deviceset.ErrPoolFull, deviceset.ErrForeign, deviceset.ErrBusy, deviceset.ErrInvalid, deviceset.ErrNotFormatted, deviceset.ErrExists,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// recover starts the process anew and finds out which model is so.
func (w *walker) recover() error {
	w.counts.recoveries++
	w.closePod()
	in := w.doubt()
	if err := w.restart(); err != nil {
		return err
	}
	w.set.Finish()
	found, err := w.observe()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(in.models, func(m model) bool { return m.String() == found.String() }) {
		return fmt.Errorf("found\n  %s\nwant one of\n  %v", found, in.models)
	}
	w.acked, w.maybe, w.redo = found, nil, nil
	return errors.Join(w.checkPool(), w.checkDevices())
}

func (w *walker) restart() (err error) {
	w.plan = nil
	w.machine = w.world.Process(nil)
	w.set, err = deviceset.OpenQuiet(w.machine, root, label, poolOptions...)
	return err
}

func (w *walker) act() error {
	name, other := w.name(), w.name()
	have, exists := w.acked[name]
	if !exists {
		return w.make(name, other)
	}
	switch w.IntN(7) {
	case 0, 1:
		return w.call(w.acked.without(name), func(s *deviceset.DeviceSet) error { return s.DeleteDevice(name, w.IntN(2) == 0) })
	case 2:
		have.size += mib
		return w.call(w.acked.with(name, have), func(s *deviceset.DeviceSet) error { return s.GrowDevice(name, have.size) })
	case 3:
		have.label = fmt.Sprint(w.IntN(1000))
		return w.call(w.acked.with(name, have), func(s *deviceset.DeviceSet) error {
			return s.SetLabels(name, map[string]string{"k": have.label})
		})
	case 4:
		if have.fs != "none" || have.content != 0 {
			return nil
		}
		have.fs, have.content = "ext4", 'f'
		return w.call(w.acked.with(name, have), func(s *deviceset.DeviceSet) error { return s.FormatDevice(name, filesystem.Ext4, nil) })
	case 5:
		if have.fs != "none" {
			return nil
		}
		return w.write(name, byte(1+w.IntN(90)))
	}
	return w.call(w.acked, func(s *deviceset.DeviceSet) error {
		_, err := s.ActivateDevice(name)
		if err == nil && w.IntN(2) == 0 {
			err = s.DeactivateDevice(name)
		}
		return err
	})
}

func (w *walker) make(name, source string) error {
	from, exists := w.acked[source]
	if !exists {
		return w.call(w.acked.with(name, expected{size: mib, fs: "none"}), func(s *deviceset.DeviceSet) error {
			return s.AddDevice(name, "", map[string]string{"fs": "none", "size": "1M"})
		})
	}
	from.label = ""
	return w.call(w.acked.with(name, from), func(s *deviceset.DeviceSet) error { return s.AddDevice(name, source, nil) })
}

func (w *walker) name() string { return string(rune('a' + w.IntN(9))) }
