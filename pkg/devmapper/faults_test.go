package devmapper_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

const (
	blockSize = dm.MinBlockSize
	poolSize  = 64 * blockSize
)

// A world is a simulated machine with a pool, a thin and a running device of it.
type world struct {
	sim    *dmsim.Kernel
	pool   dm.Pool
	volume dm.Device
	thin   dm.Table
	table  dm.Table // of the pool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{sim: dmsim.New()}
	meta, data := w.sim.NewDisk(4096), w.sim.NewDisk(2*poolSize)
	w.table = dm.Whole(poolSize, dm.ThinPool{Metadata: meta.Dev(), Data: data.Dev(), BlockSize: blockSize})
	device, err := dm.Activate(w.sim, "pool", "", w.table)
	must(t, err)
	w.pool = dm.Pool{Device: device}
	must(t, w.pool.CreateThin(1))
	info, err := w.pool.Info()
	must(t, err)
	w.thin = dm.Whole(poolSize, dm.Thin{Pool: info.Dev, ID: 1})
	w.volume, err = dm.Activate(w.sim, "volume", "", w.thin)
	must(t, err)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// everyFault runs a verb on a world of its own once for each request that it
// makes and each way in which that one may fail.
func everyFault(t *testing.T, modes []dmfault.Mode, verb func(k dm.Kernel, w *world) error, check func(t *testing.T, w *world, err error)) {
	for _, mode := range modes {
		for at := 0; ; at++ {
			w, plan := newWorld(t), &dmfault.Plan{At: at, Mode: mode}
			err := verb(dmfault.Wrap(w.sim, plan), w)
			if plan.Hit() == "" {
				must(t, err)
				break // the verb makes fewer requests than that
			}
			t.Run(fmt.Sprintf("%v: %s", mode, plan.Hit()), func(t *testing.T) { check(t, w, err) })
		}
	}
}

var (
	errorModes = []dmfault.Mode{dmfault.ErrorBefore, dmfault.ErrorAfter}
	allModes   = append(errorModes, dmfault.CrashBefore, dmfault.CrashAfter)
)

// runsWith fails unless the device is running with a table, and nothing waits.
func runsWith(t *testing.T, d dm.Device, want dm.Table) {
	t.Helper()
	info, err := d.Info()
	must(t, err)
	have, err := d.Table()
	must(t, err)
	if info.Suspended() || info.Inactive() || have.String() != want.String() {
		t.Errorf("%s: suspended %v, inactive table %v, live table %q, want %q", d, info.Suspended(), info.Inactive(), have, want)
	}
}

func TestWhileSuspendedResumesWhateverFails(t *testing.T) {
	everyFault(t, errorModes, func(k dm.Kernel, w *world) error {
		return dm.ByName(k, "volume").WhileSuspended(0, func() error {
			return dm.Pool{Device: dm.ByName(k, "pool")}.CreateSnap(2, 1)
		})
	}, func(t *testing.T, w *world, err error) {
		if err == nil {
			t.Error("the fault went unheard")
		}
		runsWith(t, w.volume, w.thin)
	})
}

func TestSwapEndsRunningWhateverFails(t *testing.T) {
	larger := func(w *world) dm.Table {
		table := dm.Whole(2*poolSize, w.table[0].Target)
		return table
	}
	everyFault(t, errorModes, func(k dm.Kernel, w *world) error {
		return dm.ByName(k, "pool").Swap(larger(w), 0)
	}, func(t *testing.T, w *world, err error) {
		if err == nil {
			t.Error("the fault went unheard")
		}
		info, err := w.pool.Info()
		must(t, err)
		if info.Suspended() || info.Inactive() {
			t.Errorf("suspended %v, inactive table %v", info.Suspended(), info.Inactive())
		}
	})
}

func TestActivateLeavesNothingHalfMade(t *testing.T) {
	everyFault(t, errorModes, func(k dm.Kernel, w *world) error {
		_, err := dm.Activate(k, "second", "", dm.Whole(8, dm.Zero{}))
		return err
	}, func(t *testing.T, w *world, err error) {
		info, infoErr := dm.ByName(w.sim, "second").Info()
		if !errors.Is(infoErr, unix.ENXIO) && (info.Active() || info.Inactive()) {
			t.Errorf("after %v a device with a table is left", err)
		}
	})
}

// A verb that succeeds was done, one that fails for sure was not, and in between
// stands ErrUnknownOutcome alone.
func TestPoolVerbsNeverLie(t *testing.T) {
	for _, verb := range []struct {
		name string
		do   func(dm.Pool) error
		done func(dm.Pool) (bool, error)
	}{
		{"create_thin", func(p dm.Pool) error { return p.CreateThin(2) }, func(p dm.Pool) (bool, error) { return p.Has(2) }},
		{"create_snap", func(p dm.Pool) error { return p.CreateSnap(2, 1) }, func(p dm.Pool) (bool, error) { return p.Has(2) }},
		{
			"set_transaction_id", func(p dm.Pool) error { return p.SetTransactionID(0, 5) },
			func(p dm.Pool) (bool, error) { id, err := p.TransactionID(); return id == 5, err },
		},
		{
			"reserve_metadata_snap", dm.Pool.ReserveMetadataSnap,
			func(p dm.Pool) (bool, error) { s, err := p.PoolStatus(); return s.HeldRoot != 0, err },
		},
	} {
		t.Run(verb.name, func(t *testing.T) {
			everyFault(t, allModes, func(k dm.Kernel, w *world) error {
				return verb.do(dm.Pool{Device: dm.ByName(k, "pool")})
			}, func(t *testing.T, w *world, err error) {
				done, doneErr := verb.done(w.pool)
				must(t, doneErr)
				if err == nil && !done {
					t.Error("answered ok, and nothing happened")
				}
				if done && err != nil && !errors.Is(err, dm.ErrUnknownOutcome) {
					t.Errorf("answered %v, and it happened", err)
				}
			})
		})
	}
}

func TestRefusalsAreCertain(t *testing.T) {
	w := newWorld(t)
	for name, err := range map[string]error{
		"in use":      w.pool.CreateThin(1),
		"no origin":   w.pool.CreateSnap(2, 3),
		"active":      w.pool.Delete(1),
		"other id":    w.pool.SetTransactionID(3, 4),
		"missing":     w.pool.Delete(9),
		"too large":   w.pool.CreateThin(1 << 24),
		"no such dev": dm.Pool{Device: dm.ByName(w.sim, "nobody")}.CreateThin(2),
	} {
		if err == nil || errors.Is(err, dm.ErrUnknownOutcome) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// neverResumes refuses every resume.
type neverResumes struct{ dm.Kernel }

func (k neverResumes) Do(r dm.Request) (dm.Reply, error) {
	if r.Command == dm.DevSuspend && r.Flags&dm.Suspend == 0 {
		return dm.Reply{}, unix.EIO
	}
	return k.Kernel.Do(r)
}

func TestADeviceThatStaysSuspendedIsCalledSo(t *testing.T) {
	w := newWorld(t)
	d := dm.ByName(neverResumes{w.sim}, "volume")
	if err := d.WhileSuspended(0, func() error { return nil }); !errors.Is(err, dm.ErrLeftSuspended) {
		t.Errorf("error is %v", err)
	}
	must(t, w.volume.Resume())
	runsWith(t, w.volume, w.thin)
}
