package deviceset_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

// A load writes a device and reads it again, from one end to the other, until it is
// ended. An error, or other content than was written, fails the story.
type load struct {
	lab    *kernelLab
	stop   func()
	done   sync.WaitGroup
	blocks atomic.Int64
}

func (l *kernelLab) load(r *raw, size int64) *load {
	w := &load{lab: l}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	l.Cleanup(w.end)
	w.done.Go(func() {
		for seed, at := uint64(1), int64(0); ctx.Err() == nil; seed, at = seed+1, (at+block)%size {
			if err := r.tryWrite(seed, at, block); err != nil {
				l.Errorf("write at %d: %v", at, err)
				return
			}
			have, err := r.read(at, block)
			if err != nil || string(have) != string(pattern(seed, block)) {
				l.Errorf("read at %d: not what was written, error %v", at, err)
				return
			}
			w.blocks.Add(1)
		}
	})
	return w
}

func (w *load) end() {
	w.stop()
	w.done.Wait()
}

// waitForMore waits until more has been written and read.
func (w *load) waitForMore() {
	w.lab.Helper()
	begin := w.blocks.Load()
	w.lab.waitFor("the load", func() bool { return w.blocks.Load() > begin+20 || w.lab.Failed() })
}

// A pool grows while it is written to, with its metadata.
func TestKernelResize(t *testing.T) {
	for _, test := range []struct {
		name string
		open func(l *kernelLab) (s *deviceset.DeviceSet, enlarge func(data, metadata int64))
	}{
		{"disks", func(l *kernelLab) (*deviceset.DeviceSet, func(data, metadata int64)) {
			data, metadata, options := l.onDisks(256*mib, 16*mib)
			s := l.open(append(options, "dm.min_free_space=0%", "dm.min_free_metadata=0%")...)
			return s, func(dataSize, metadataSize int64) {
				l.must(data.Grow(dm.SectorsIn(dataSize)))
				l.must(metadata.Grow(dm.SectorsIn(metadataSize)))
			}
		}},
		{"files", func(l *kernelLab) (*deviceset.DeviceSet, func(data, metadata int64)) {
			s := l.open("dm.loopdatasize=256M", "dm.loopmetadatasize=16M")
			return s, func(int64, int64) {}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newKernelLab(t)
			s, enlarge := test.open(l)
			l.blank(s, "a", 64*mib)
			r := l.raw(s, "a")
			w := l.load(r, 64*mib)
			for _, size := range []int64{300 * mib, 512 * mib, 10 * 1024 * mib} {
				metadata := max(64*mib, (size/100+mib-1)/mib*mib)
				enlarge(size, metadata)
				w.waitForMore()
				l.must(s.ResizePool(size))
				w.waitForMore()
				status := l.poolStatus(s)
				l.equal(int64(status.Data.Total)*block, size)
				if have, most := int64(status.Metadata.Total)*4096, metadata*9/10; have > most || have < most-8*4096 {
					t.Errorf("%d bytes of metadata are in use of %d", have, metadata)
				}
				l.must(s.ResizePool(size))
				l.refused(s.ResizePool(size-mib), deviceset.ErrTooSmall)
				l.equal(l.poolStatus(s).Data.Total, status.Data.Total)
			}
			w.end()
			t.Logf("%d blocks were written and read meanwhile", w.blocks.Load())
			r.close()
			l.must(s.DeactivateDevice("a"))
		})
	}
}

// A disk that is not as large yet is no reason to do half of it.
func TestKernelResizeBeyondTheDisk(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	before := l.poolStatus(s)
	l.refused(s.ResizePool(512*mib), deviceset.ErrInvalid)
	l.equal(l.poolStatus(s), before)
}

// runs fails if one of the machine's devices is suspended, or has a table waiting.
func (l *kernelLab) runs() {
	l.Helper()
	devices, err := dm.List(l.kernel, "", "")
	l.must(err)
	for _, d := range devices {
		info, err := dm.ByName(l.kernel, d.Name).Info()
		if errors.Is(err, unix.ENXIO) {
			continue
		}
		l.must(err)
		if info.Suspended() || info.Inactive() || !info.Active() {
			l.Fatalf("device %s: %+v", d.Name, info)
		}
	}
}

// Whichever step of a resize fails, the pool runs on, with its old size or its new
// one, and the next attempt succeeds.
func TestKernelResizeFails(t *testing.T) {
	for _, mode := range []dmfault.Mode{dmfault.ErrorBefore, dmfault.ErrorAfter} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newKernelLab(t)
			data, metadata, options := l.onDisks(256*mib, 16*mib)
			p := l.newProcess()
			s, err := deviceset.OpenQuiet(p, l.root, mib, options...)
			l.must(err)
			l.shutAtEnd(s)
			l.blank(s, "a", 8*mib)
			r := l.raw(s, "a")
			size, metadataSize := 256*mib, 16*mib
			for at := 0; ; at++ {
				before := l.poolStatus(s)
				size, metadataSize = size+16*mib, metadataSize+mib
				l.must(data.Grow(dm.SectorsIn(size)))
				l.must(metadata.Grow(dm.SectorsIn(metadataSize)))
				plan := &dmfault.Plan{At: at, Mode: mode}
				p.breakWith(plan)
				err := s.ResizePool(size)
				p.breakWith(nil)
				hit := plan.Hit()
				if hit == "" {
					l.must(err)
					t.Logf("%d steps", at)
					break
				}
				l.runs()
				r.write(uint64(at), 0, 4*block)
				r.want(uint64(at), 0, 4*block)
				status := l.poolStatus(s)
				if total := int64(status.Data.Total) * block; total != size && (total != int64(before.Data.Total)*block || err == nil) {
					t.Errorf("%s failed: the pool has %d bytes, error %v", hit, total, err)
				}
				l.must(s.ResizePool(size))
				l.runs()
				status = l.poolStatus(s)
				l.equal(int64(status.Data.Total)*block, size)
				if status.Metadata.Total <= before.Metadata.Total {
					t.Errorf("%s failed: the metadata has %d blocks, it had %d", hit, status.Metadata.Total, before.Metadata.Total)
				}
			}
			r.close()
			l.must(s.DeactivateDevice("a"))
		})
	}
}

// Whichever step of a resize a process dies at, the next start lets the pool run on.
func TestKernelResizeKilled(t *testing.T) {
	for _, mode := range []dmfault.Mode{dmfault.CrashBefore, dmfault.CrashAfter} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newKernelLab(t)
			data, metadata, options := l.onDisks(256*mib, 16*mib)
			s, p := l.process(options...)
			l.blank(s, "a", 8*mib)
			r := l.raw(s, "a")
			size, metadataSize := 256*mib, 16*mib
			for at := 0; ; at++ {
				size, metadataSize = size+16*mib, metadataSize+mib
				l.must(data.Grow(dm.SectorsIn(size)))
				l.must(metadata.Grow(dm.SectorsIn(metadataSize)))
				plan := &dmfault.Plan{At: at, Mode: mode}
				p.breakWith(plan)
				err := s.ResizePool(size)
				p.die(s)
				s, p = l.process(options...)
				l.runs()
				r.write(uint64(at), 0, 4*block)
				r.want(uint64(at), 0, 4*block)
				if plan.Hit() == "" {
					l.must(err)
					l.equal(int64(l.poolStatus(s).Data.Total)*block, size)
					break
				}
				l.must(s.ResizePool(size))
				l.equal(int64(l.poolStatus(s).Data.Total)*block, size)
			}
			r.close()
			l.must(s.DeactivateDevice("a"))
		})
	}
}
