package devmapper_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// The stories of this file are about several CPUs: on one, with nothing to wait
// for an RCU grace period, they would prove nothing.

// kernelPool makes a pool on the real kernel that goes with the test.
func kernelPool(t *testing.T) dm.Pool {
	t.Helper()
	m := dmtest.RealMachine(t)
	dmtest.CheckLeftovers(t, m)
	meta, err := m.NewDisk(8192)
	must(t, err)
	t.Cleanup(func() { must(t, meta.Close()) })
	data, err := m.NewDisk(4 * poolSize)
	must(t, err)
	t.Cleanup(func() { must(t, data.Close()) })
	d, err := dm.Activate(m.Kernel(), "dmtest-smp-pool", "", dm.Whole(4*poolSize, dm.ThinPool{
		Metadata: meta.Dev(), Data: data.Dev(), BlockSize: blockSize,
	}))
	must(t, err)
	t.Cleanup(func() { must(t, d.Remove()) })
	return dm.Pool{Device: d}
}

// inParallel calls do for 0 to n-1 from a number of goroutines.
func inParallel(t *testing.T, workers, n int, do func(i int) error) time.Duration {
	t.Helper()
	begin := time.Now()
	var wait sync.WaitGroup
	for worker := range workers {
		wait.Go(func() {
			for i := worker; i < n; i += workers {
				if err := do(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	return time.Since(begin)
}

// Activations and removals each wait for the kernel's grace periods, and wait for
// them together when they come together. A lock over them would cost an order of
// magnitude.
func TestKernelSMPActivationsOverlap(t *testing.T) {
	k := dmtest.RequireSMP(t)
	pool := kernelPool(t)
	info, err := pool.Info()
	must(t, err)
	const thins = 64
	for id := range dm.DeviceID(thins) {
		must(t, pool.CreateThin(id))
	}
	name := func(i int) string { return fmt.Sprintf("dmtest-smp-%d", i) }
	activate := func(i int) error {
		table := dm.Whole(poolSize, dm.Thin{Pool: info.Dev, ID: dm.DeviceID(i)})
		_, err := dm.Activate(k, name(i), "dmtest-smp-uuid-"+name(i), table)
		return err
	}
	remove := func(i int) error { return dm.ByName(k, name(i)).Remove() }

	up1, down1 := inParallel(t, 1, thins, activate), inParallel(t, 1, thins, remove)
	up16, down16 := inParallel(t, 16, thins, activate), inParallel(t, 16, thins, remove)
	t.Logf("%d activations: %v serial, %v by 16; removals: %v serial, %v by 16", thins, up1, up16, down1, down16)
	if 2*(up16+down16) > up1+down1 {
		t.Error("16 at once take more than half the time of one after the other")
	}
}

// Whoever makes thin devices at the same time gets what he was answered.
func TestKernelSMPVerbsAtOnce(t *testing.T) {
	k := dmtest.RequireSMP(t)
	pool := kernelPool(t)
	info, err := pool.Info()
	must(t, err)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const workers, steps, ids = 8, 60, 16
	inParallel(t, workers, workers, func(worker int) error {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		mine := map[dm.DeviceID]bool{} // by this worker's own ids
		for range steps {
			id := dm.DeviceID(worker*ids + random.IntN(ids))
			origin := dm.DeviceID(worker*ids + random.IntN(ids))
			if err := step(k, pool, info.Dev, random.IntN(4), id, origin, mine); err != nil {
				return err
			}
		}
		for id, want := range mine {
			if have, err := pool.Has(id); err != nil || have != want {
				return fmt.Errorf("thin %d: there %v, want %v, error %w", id, have, want, err)
			}
		}
		return nil
	})
}

// step does one thing, and fails if the answer does not fit what is known.
func step(k dm.Kernel, pool dm.Pool, dev dm.DevNo, what int, id, origin dm.DeviceID, mine map[dm.DeviceID]bool) (err error) {
	var want error
	switch what {
	case 0:
		if err = pool.CreateThin(id); mine[id] {
			want = unix.EEXIST
		}
		mine[id] = true
	case 1:
		err = pool.CreateSnap(id, origin)
		switch {
		case mine[id]:
			want = unix.EEXIST
		case !mine[origin]:
			want = unix.ENODATA
		default:
			mine[id] = true
		}
	case 2:
		if err = pool.Delete(id); !mine[id] {
			want = unix.ENODATA
		}
		mine[id] = false
	case 3:
		var d dm.Device
		d, err = dm.Activate(k, fmt.Sprintf("dmtest-smp-%d", id), "", dm.Whole(poolSize, dm.Thin{Pool: dev, ID: id}))
		if !mine[id] {
			want = unix.ENODATA
		} else if err == nil {
			err = errors.Join(d.WhileSuspended(0, func() error { return nil }), d.Remove())
		}
	}
	if !errors.Is(err, want) {
		return fmt.Errorf("thing %d with thin %d of %d: error is %w, want %w", what, id, origin, err, want)
	}
	return nil
}
