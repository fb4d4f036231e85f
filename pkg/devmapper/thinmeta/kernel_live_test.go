package thinmeta

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// While one device is written, discarded and committed without a pause, an
// inactive one reads as it is and the busy one as it was at some commit, unless
// the pool is faster at every attempt, which only a pool as busy as this one is.
func TestKernelBusyPool(t *testing.T) {
	p := newKernelPool(t, leavesNothing(t), metadataFile(t, 8<<20), 128, 1<<20)
	defer p.close()
	defer p.stop()
	p.must(p.CreateThin(1))
	v := p.open(1, volumeBlocks)
	defer v.close()
	for block := range uint64(1000) {
		v.write(2 * block)
	}
	p.must(p.CreateSnap(2, 1))
	p.must(p.CreateSnap(3, 1))
	m, err := Open(p.loop.Name())
	p.must(err)
	defer m.Close()
	want, err := m.Ranges(2)
	p.must(err)
	stop := v.keepBusy()
	defer stop()
	idle, changed := 0, 0
	for begin := time.Now(); time.Since(begin) < 3*time.Second || idle == 0 && time.Since(begin) < time.Minute; {
		if ranges, err := m.Ranges(2); !errors.Is(err, ErrChanged) {
			equal(t, "idle ranges", want)(ranges, err)
			idle++
		}
		if delta, err := m.Delta(2, 3); !errors.Is(err, ErrChanged) {
			equal[[]Difference](t, "idle delta", nil)(delta, err)
			idle++
		}
		for _, ask := range []func() error{
			func() error { _, err := m.Ranges(1); return err }, // compares the number of mappings
			func() error { _, err := m.Delta(2, 1); return err },
			func() error { _, err := m.Exclusive(1); return err },
			func() error { _, err := m.Extent(1); return err },
			func() error { _, err := m.Devices(); return err },
		} {
			err := ask()
			if err != nil && !errors.Is(err, ErrChanged) {
				t.Fatal(err)
			}
			if err != nil {
				changed++
			}
		}
	}
	t.Logf("%d reads, %d answers about the idle devices, %d about the busy one given up", m.Reads(), idle, changed)
	if idle == 0 {
		t.Error("no question about the idle devices was answered")
	}
}

// keepBusy changes a device, and its pool's metadata, until it is told to stop.
func (v *volume) keepBusy() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			block := rand.Uint64N(volumeBlocks)
			v.write(block)
			v.pool.must(v.file.Sync())
			v.discard(block, 1)
			v.pool.must(v.file.Sync())
		}
	}()
	return func() { close(quit); <-done }
}

// What a pool holds stays, whatever becomes of the pool.
func TestKernelHeld(t *testing.T) {
	p := newKernelPool(t, leavesNothing(t), metadataFile(t, 8<<20), 128, 1<<20)
	defer p.close()
	defer p.stop()
	p.must(p.CreateThin(1))
	v := p.open(1, volumeBlocks)
	for block := range uint64(300) {
		v.write(block)
	}
	_, err := OpenHeld(p.loop.Name())
	if !errors.Is(err, ErrNotHeld) {
		t.Fatalf("error is %v", err)
	}
	p.must(p.ReserveMetadataSnap())
	held, err := OpenHeld(p.loop.Name())
	p.must(err)
	defer held.Close()
	v.discard(0, 100)
	v.close()
	p.must(p.Delete(1))
	equal(t, "held ranges", []Range{{0, 300}})(held.Ranges(1))
	p.must(p.ReleaseMetadataSnap())
	if _, err := held.Ranges(1); !errors.Is(err, ErrNotHeld) {
		t.Fatalf("error is %v", err)
	}
}

// Metadata that has grown is read beyond the size that it was made with.
func TestKernelGrownMetadata(t *testing.T) {
	path := metadataFile(t, 512<<10)
	p := newKernelPool(t, leavesNothing(t), path, 128, 1<<20)
	defer p.close()
	defer p.stop()
	p.must(os.Truncate(path, 8<<20))
	p.must(p.loop.UpdateCapacity())
	table, err := p.Table()
	p.must(err)
	p.must(p.Swap(table, 0))
	p.must(p.CreateThin(1))
	v := p.open(1, 1<<20)
	defer v.close()
	for block := range uint64(30_000) {
		v.write(block * 7 % (1 << 20))
	}
	_, err = p.Commit()
	p.must(err)
	m, err := Open(p.loop.Name())
	p.must(err)
	defer m.Close()
	ranges, err := m.Ranges(1)
	p.must(err)
	super, err := m.Superblock()
	p.must(err)
	if Sum(ranges) != 30_000 || super.Metadata.Total != 2048 || super.Metadata.Used < 128 {
		t.Errorf("%d blocks are mapped, superblock is %+v", Sum(ranges), super)
	}
}

// An image of metadata that the kernel would format is told from a damaged one.
func TestKernelBlank(t *testing.T) {
	leavesNothing(t)
	if _, err := Open(metadataFile(t, 1<<20)); !errors.Is(err, ErrBlank) {
		t.Errorf("error is %v", err)
	}
}
