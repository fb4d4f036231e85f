package deviceset_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

// fill writes a device from the begin until the pool is full, and returns how much
// it took.
func (l *kernelLab) fill(s *deviceset.DeviceSet, r *raw) (end int64) {
	l.Helper()
	for ; ; end += block {
		if err := r.tryWrite(uint64(end), end, block); err != nil {
			l.refused(err, unix.ENOSPC)
			break
		}
	}
	l.waitFor("the pool to be full", func() bool { return s.Status().Mode == "out_of_data_space" })
	return end
}

// newBlank is what a caller asks for who wants a small device.
var newBlank = deviceset.DeviceOptions{FS: "none", Size: mib}

// A full pool refuses what needs space, at once and by name. Deleting brings it back,
// and so does growing it.
func TestKernelFull(t *testing.T) {
	l := newKernelLab(t)
	data, _, options := l.onDisks(64*mib, 16*mib)
	s := l.open(append(options, "dm.overprovision_ratio=0")...)
	l.blank(s, "a", 128*mib)
	l.blank(s, "b", 8*mib)
	l.put(s, "b", 1)
	l.must(s.AddDevice("c", "b", nil))
	r := l.raw(s, "a")
	end := l.fill(s, r)
	l.nextEvent(s, deviceset.EventLowData)
	l.nextEvent(s, deviceset.EventMode)

	// No suspend is begun, which might wait for space.
	l.within(5*time.Second, "refusing", func() {
		l.refused(s.CreateDevice("d", "", newBlank), deviceset.ErrPoolFull)
		l.refused(s.AddDevice("d", "a", nil), deviceset.ErrPoolFull)
		l.refused(s.AddDevice("d", "b", nil), deviceset.ErrPoolFull)
		l.refused(s.GrowDevice("a", 256*mib), deviceset.ErrPoolFull)
	})
	l.equal(s.List(), []string{"a", "b", "c"})
	l.equal(len(l.thins(s)), 4)
	r.want(uint64(end-block), end-block, block)
	l.holds(s, "c", 1)

	// b shares all that it has, so its end brings nothing; that of c does.
	l.must(s.DeleteDevice("b", true))
	l.refused(r.tryWrite(0, end, block), unix.ENOSPC)
	l.must(s.DeleteDevice("c", true))
	l.waitFor("the pool to take writes", func() bool { return r.tryWrite(uint64(end), end, block) == nil })

	l.refused(s.CreateDevice("d", "", newBlank), deviceset.ErrPoolFull) // a tenth is kept free
	end = l.fill(s, r)
	l.must(data.Grow(dm.SectorsIn(128 * mib)))
	l.must(s.ResizePool(128 * mib))
	r.write(uint64(end), end, block)
	l.must(s.CreateDevice("d", "", newBlank))
	l.must(s.AddDevice("e", "a", nil))
	r.close()
	l.must(s.DeactivateDevice("a"))
}

// Where writes wait for space, growth lets them go on.
func TestKernelFullAndWaiting(t *testing.T) {
	l := newKernelLab(t)
	data, _, options := l.onDisks(64*mib, 16*mib)
	s := l.open(append(options, "dm.overprovision_ratio=0", "dm.error_if_no_space=false")...)
	l.equal(s.Status().ErrorIfNoSpace, false)
	l.blank(s, "a", 128*mib)
	r := l.raw(s, "a")
	written := make(chan error)
	size := int64(s.Status().Data.Available) + 4*block // more than there is
	go func() {
		var err error
		for at := int64(0); at < size && err == nil; at += block {
			err = r.tryWrite(uint64(at), at, block)
		}
		written <- err
	}()
	l.waitFor("the pool to be full", func() bool { return s.Status().Mode == "out_of_data_space" })
	l.within(5*time.Second, "refusing", func() {
		l.refused(s.AddDevice("b", "a", nil), deviceset.ErrPoolFull)
		l.refused(s.GrowDevice("a", 256*mib), deviceset.ErrPoolFull)
	})
	select {
	case err := <-written:
		t.Fatalf("nothing waits: %v", err)
	default:
	}
	l.must(data.Grow(dm.SectorsIn(128 * mib)))
	l.within(5*time.Second, "growing", func() { l.must(s.ResizePool(128 * mib)) })
	l.must(<-written)
	for at := int64(0); at < size; at += block {
		r.want(uint64(at), at, block)
	}
	r.close()
	l.must(s.DeactivateDevice("a"))
}

// createBeside makes thin devices behind the set's back, until done says so or the
// pool refuses.
func (l *kernelLab) createBeside(s *deviceset.DeviceSet, first dm.DeviceID, done func() bool) (err error) {
	l.Helper()
	pool, before := l.pool(s), l.poolStatus(s)
	for id := first; !done(); id++ {
		if err = pool.CreateThin(id); err != nil {
			return err
		}
		if status := l.poolStatus(s); lowOn(status) && !lowOn(before) {
			time.Sleep(100 * time.Millisecond) // whoever is to do something about it hears of it
			before = status
		}
	}
	return nil
}

func lowOn(status dm.PoolStatus) bool { return status.Metadata.Free() < status.MetadataLowWater }

// Metadata runs short: first nothing new is made, then the pool gets what was held
// back of it, so that deleting goes on. When even that is used up the pool is
// read-only, until its metadata device is larger.
func TestKernelFullMetadata(t *testing.T) {
	l := newKernelLab(t)
	_, metadata, options := l.onDisks(256*mib, 4*mib)
	s := l.open(append(options, "dm.overprovision_ratio=0", "dm.min_free_metadata=40%")...)
	held := s.Status().MetadataHeldBack
	if held < uint64(4*mib/11) || held > uint64(4*mib/9) {
		t.Fatalf("%d bytes are held back", held)
	}
	var err error
	count := 0
	for ; err == nil; count++ {
		err = s.CreateDevice(l.name("thin"), "", newBlank)
	}
	l.refused(err, deviceset.ErrPoolFull)
	l.refused(s.AddDevice("snapshot", s.List()[0], nil), deviceset.ErrPoolFull)
	status := l.poolStatus(s)
	if free := status.Metadata.Free() * 100 / status.Metadata.Total; free < 38 || free > 40 {
		t.Errorf("refused with %d %% free", free)
	}
	t.Logf("%d devices: %s", count-1, status)

	given := status.Metadata.Total
	l.must(l.createBeside(s, 1<<20, func() bool { return l.poolStatus(s).Metadata.Total > given }))
	if e := l.nextEvent(s, deviceset.EventGrown); e.Err != nil || e.Status.Metadata.Total != uint64(4*mib/4096) {
		t.Errorf("event %s", e)
	}
	l.equal(s.Status().MetadataHeldBack, uint64(0))
	l.must(s.DeleteDevice(s.List()[0], true))

	// Now there is nothing left to give, which is told once it runs short again.
	l.refused(l.createBeside(s, 2<<20, func() bool { return false }), dm.ErrUnknownOutcome)
	l.nextEvent(s, deviceset.EventLowMetadata)
	l.equal(s.Status().Mode, "ro")
	name := s.List()[0]
	before := len(s.List())
	l.refused(s.CreateDevice("a", "", newBlank), deviceset.ErrPoolFull)
	l.refused(s.DeleteDevice(name, true), deviceset.ErrUnavailable)
	l.equal(len(s.List()), before-1) // it is written down, and will be done
	l.equal(s.Status().DeferredDeletedDeviceCount, uint(1))

	l.must(metadata.Grow(dm.SectorsIn(8 * mib)))
	l.must(s.ResizePool(256 * mib))
	l.equal(s.Status().Mode, "rw")
	l.waitIdle(s)
	l.must(s.DeleteDevice(s.List()[0], true))
	l.must(s.Shutdown(l.root))
	s = l.open(options...)
	l.equal(len(s.List()), before-2)
	l.equal(s.Status().Ghosts, []string(nil))
	if n := len(s.Status().Orphans); n == 0 || n+len(s.List())+1 != len(l.thins(s)) {
		t.Errorf("%d orphans, %d devices, and the pool has %d", n, len(s.List()), len(l.thins(s)))
	}
}

// Whichever step of giving the rest of the metadata fails, or a process dies at, it is
// given in the end.
func TestKernelFullMetadataFails(t *testing.T) {
	for _, mode := range []dmfault.Mode{dmfault.ErrorBefore, dmfault.CrashAfter} {
		t.Run(mode.String(), func(t *testing.T) {
			eachStep(t, mode, func(l *kernelLab, plan *dmfault.Plan) {
				_, _, options := l.onDisks(64*mib, 2560<<10)
				l.runLow(append(options, "dm.overprovision_ratio=0", "dm.min_free_metadata=0%", "dm.min_free_space=0%"), plan)
			})
		})
	}
}

// runLow lets the metadata run short while a plan breaks what is done about it.
func (l *kernelLab) runLow(options []string, plan *dmfault.Plan) {
	l.Helper()
	p := l.newProcess()
	s, err := deviceset.OpenQuiet(p, l.root, mib, options...)
	l.must(err)
	l.must(l.createBeside(s, 1<<20, func() bool {
		status := l.poolStatus(s)
		return status.Metadata.Free() < status.MetadataLowWater
	}))
	given := l.poolStatus(s).Metadata.Total
	p.breakWith(plan)
	s.Relieve()
	p.breakWith(nil)
	if plan.Crashed() {
		p.die(s)
		p = l.newProcess()
		s, err = deviceset.OpenQuiet(p, l.root, mib, options...)
		l.must(err)
	}
	l.runs()
	s.Relieve()
	l.runs()
	if total := l.poolStatus(s).Metadata.Total; total <= given || total != 640 {
		l.Errorf("%v of %q: the metadata has %d blocks, it had %d", plan.Mode, plan.Hit(), total, given)
	}
	l.must(s.CreateDevice("a", "", newBlank))
	l.must(s.Shutdown(l.root))
}
