package deviceset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A desk is a store with its files.
type desk struct {
	*store
	files [2][2]*slotFile // the root's and the label's

	mu       sync.Mutex
	syncs    int
	syncTime time.Duration
	fail     func(io string) error // nil, or asked for each: "write root", "sync label"
	wrong    error                 // a rule that was broken
}

// A slotFile is a slot in memory that knows what of it is durable.
type slotFile struct {
	desk     *desk
	of       string
	bytes    []byte
	durable  []byte
	unsynced bool
}

func newDesk(t testing.TB, slot int64) *desk {
	t.Helper()
	d := &desk{}
	var slots [2]*journal.Slots
	for i, of := range []string{"root", "label"} {
		for j := range 2 {
			d.files[i][j] = &slotFile{desk: d, of: of, bytes: make([]byte, slot), durable: make([]byte, slot)}
		}
		slots[i] = journal.New([2]journal.File{d.files[i][0], d.files[i][1]}, slot)
	}
	d.store = newStore(slots[0])
	d.label, d.gate = slots[1], func(do func() error) error { return do() }
	d.catalog = newCatalog(poolRecord{UUID: "u"})
	d.head = journal.Header{Pool: "u", Store: "s", Machine: "m"}
	for _, s := range slots {
		text, err := d.catalog.checkpoint()
		if err := errors.Join(err, s.Switch(d.head, text, 1)); err != nil {
			t.Fatal(err)
		}
	}
	d.syncs = 0
	t.Cleanup(func() {
		if d.wrong != nil {
			t.Error(d.wrong)
		}
	})
	return d
}

func (f *slotFile) ReadAt(b []byte, at int64) (int, error) {
	f.desk.mu.Lock()
	defer f.desk.mu.Unlock()
	return copy(b, f.bytes[at:]), nil
}

func (f *slotFile) WriteAt(b []byte, at int64) (int, error) {
	f.desk.mu.Lock()
	defer f.desk.mu.Unlock()
	if err := f.desk.broken("write " + f.of); err != nil {
		return 0, err
	}
	if f.of == "root" {
		if f.unsynced {
			f.desk.wrong = errors.New("two frames are in flight")
		}
		f.unsynced = true
	}
	return copy(f.bytes[at:], b), nil
}

func (f *slotFile) Sync() error {
	f.desk.mu.Lock()
	taken := slices.Clone(f.bytes)
	took := f.desk.syncTime
	f.desk.mu.Unlock()
	time.Sleep(took)
	f.desk.mu.Lock()
	defer f.desk.mu.Unlock()
	f.desk.syncs++
	f.unsynced = false
	if err := f.desk.broken("sync " + f.of); err != nil {
		return err
	}
	f.durable = taken
	return nil
}

func (d *desk) broken(io string) error {
	if d.fail != nil {
		return d.fail(io)
	}
	return nil
}

// fails makes an I/O fail from now on; "" mends all.
func (d *desk) fails(io string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = func(is string) error {
		if is == io {
			return err
		}
		return nil
	}
}

// A memory is a slot that is only read.
type memory struct{ *bytes.Reader }

func (memory) WriteAt([]byte, int64) (int, error) { return 0, io.ErrShortWrite }
func (memory) Sync() error                        { return nil }

// replay returns what a new process would read, of the root or of the label: what
// is durable, or what is written.
func (d *desk) replay(t testing.TB, copied int, durable bool) *reading {
	t.Helper()
	var files [2]journal.File
	d.mu.Lock()
	for i, f := range d.files[copied] {
		b := f.bytes
		if durable {
			b = f.durable
		}
		files[i] = memory{bytes.NewReader(slices.Clone(b))}
	}
	d.mu.Unlock()
	r, err := readSlots(journal.New(files, d.root.Size()))
	if err != nil || r.gap {
		t.Fatalf("replay: %v", err)
	}
	return r
}

// create is a record of a new device, by its number.
func create(n int) record {
	return record{Do: doCreate, Op: uint64(n), Device: &device{Name: fmt.Sprint("pvc-", n), ID: dm.DeviceID(n), Size: 1 << 30}}
}

// make creates a device and ends that.
func (d *desk) make(n int) error {
	if err := d.commit(create(n)); err != nil {
		return err
	}
	return d.later(record{Do: doEnd, Op: uint64(n)})
}

// unmake deletes it.
func (d *desk) unmake(n, op int) error {
	if err := d.commit(record{Do: doDelete, Op: uint64(op), Name: fmt.Sprint("pvc-", n)}); err != nil {
		return err
	}
	return d.later(record{Do: doEnd, Op: uint64(op)})
}

// agree compares the catalog with what both copies say.
func (d *desk) agree(t testing.TB) {
	t.Helper()
	if err := d.flush(); err != nil {
		t.Fatal(err)
	}
	d.view(func(c *catalog) {
		same(t, "the root's copy", d.replay(t, 0, true).catalog, c)
		same(t, "the label's copy", d.replay(t, 1, false).catalog, c)
	})
}

// each calls do for 0 to n-1 at once.
func each(t testing.TB, n int, do func(int) error) {
	t.Helper()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := do(i); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Commits that come together share a sync, and each is durable when it returns.
func TestCommitsShareSyncs(t *testing.T) {
	const writers, rounds = 16, 12
	d := newDesk(t, 512*kib)
	d.syncTime = 5 * time.Millisecond
	each(t, writers, func(writer int) error {
		for round := range rounds {
			n := 1 + writer*rounds + round
			if err := d.commit(create(n)); err != nil {
				return err
			}
			if d.replay(t, 0, true).catalog.open[uint64(n)] == nil {
				return fmt.Errorf("commit %d returned and is not durable", n)
			}
			if err := d.later(record{Do: doEnd, Op: uint64(n)}); err != nil {
				return err
			}
		}
		return nil
	})
	if d.syncs > writers*rounds/4 {
		t.Errorf("%d syncs for %d commits", d.syncs, writers*rounds)
	}
	t.Logf("%d syncs for %d commits", d.syncs, writers*rounds)
	d.agree(t)
}

// The end of an operation is written with the next frame, before its records.
func TestEndsRide(t *testing.T) {
	d := newDesk(t, 64*kib)
	if err := d.make(1); err != nil {
		t.Fatal(err)
	}
	r := d.replay(t, 0, true)
	if d.syncs != 1 || r.last != 1 || len(r.catalog.open) != 1 || len(r.catalog.devices) != 0 {
		t.Errorf("%d syncs, frame %d, %d open operations", d.syncs, r.last, len(r.catalog.open))
	}
	d.view(func(c *catalog) {
		if c.devices["pvc-1"] == nil {
			t.Error("an end is not applied at once")
		}
	})
	if err := d.commit(create(2)); err != nil {
		t.Fatal(err)
	}
	if r = d.replay(t, 0, true); d.syncs != 2 || r.last != 2 || r.catalog.devices["pvc-1"] == nil || r.catalog.open[2] == nil {
		t.Errorf("%d syncs, frame %d, %+v", d.syncs, r.last, r.catalog)
	}
	if r.catalog.Fence != 1 {
		t.Errorf("the fence is %d, and the operation that ended was begun in frame 1", r.catalog.Fence)
	}
	if err := errors.Join(d.flush(), d.flush()); err != nil || d.syncs != 2 {
		t.Errorf("nothing to flush: %v, %d syncs", err, d.syncs)
	}
	d.agree(t)
	if err := d.later(record{Do: doEnd, Op: 77}); !errors.Is(err, errBadRecord) {
		t.Errorf("the end of nothing: %v", err)
	}
	d.agree(t)
}

// After an error that leaves open what is on the medium nothing is written any more.
func TestPoison(t *testing.T) {
	for _, test := range []struct {
		io  string
		err error
	}{
		{"sync root", unix.EIO}, {"sync root", unix.ENOSPC}, {"sync root", unix.EDQUOT},
		{"write root", unix.EIO},
		{"write label", unix.EIO}, {"write label", unix.ENOSPC},
	} {
		for _, switching := range []bool{false, true} {
			d := newDesk(t, 64*kib)
			if err := d.make(1); err != nil {
				t.Fatal(err)
			}
			for n := 2; switching && d.root.Room() > 0; n++ {
				if err := d.make(n); err != nil {
					t.Fatal(err)
				}
			}
			d.fails(test.io, test.err)
			if err := d.commit(create(98)); !errors.Is(err, ErrUnavailable) || !errors.Is(err, test.err) {
				t.Errorf("%s is %v: %v", test.io, test.err, err)
			}
			d.fails("", nil)
			before := d.replay(t, 0, false).last
			for range 2 {
				err := d.commit(create(99))
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, test.err) || !errors.Is(d.writable(), ErrUnavailable) {
					t.Errorf("after %s was %v: %v", test.io, test.err, err)
				}
			}
			d.view(func(c *catalog) {
				if c.devices["pvc-1"] == nil || c.open[98] != nil || c.open[99] != nil {
					t.Errorf("after %s was %v: the catalog is %+v", test.io, test.err, c)
				}
			})
			if after := d.replay(t, 0, false).last; after != before {
				t.Errorf("frame %d was written after %s was %v", after, test.io, test.err)
			}
		}
	}
}

// A root that is full or read-only has taken nothing, and may be well again.
func TestRefused(t *testing.T) {
	for _, refusal := range []error{unix.ENOSPC, unix.EROFS, unix.EDQUOT} {
		for _, switching := range []bool{false, true} {
			d := newDesk(t, 64*kib)
			n := 1
			for ; n < 3 || switching && d.root.Room() > 0; n++ {
				if err := d.make(n); err != nil {
					t.Fatal(err)
				}
			}
			d.fails("write root", refusal)
			for range 2 {
				if err := d.commit(create(n)); !errors.Is(err, ErrUnavailable) || !errors.Is(err, refusal) {
					t.Errorf("%v: %v", refusal, err)
				}
			}
			if err := d.writable(); err != nil {
				t.Error(err)
			}
			d.fails("", nil)
			if err := d.make(n); err != nil {
				t.Errorf("after %v: %v", refusal, err)
			}
			d.agree(t)
		}
	}
}

// What is too much for the journal is refused, and costs nobody else anything; so is
// what would be too much together with what is on its way.
func TestTooMuch(t *testing.T) {
	d := newDesk(t, 64*kib)
	d.syncTime = 10 * time.Millisecond
	huge := create(1)
	huge.Device.Labels = map[string]string{"a": strings.Repeat("x", 64<<10)}
	if err := d.commit(huge); !errors.Is(err, ErrPoolFull) {
		t.Error(err)
	}
	var refused, made atomic.Int32
	each(t, 8, func(n int) error {
		big := create(10 + n)
		big.Device.Labels = map[string]string{"a": strings.Repeat("x", 3<<10)} // 18 KiB when escaped
		err := d.commit(big)
		switch {
		case err == nil:
			made.Add(1)
		case errors.Is(err, ErrPoolFull):
			refused.Add(1)
		default:
			return err
		}
		return nil
	})
	if made.Load() != 2 || refused.Load() != 6 {
		t.Errorf("%d were made, %d refused", made.Load(), refused.Load())
	}
	if err := d.make(2); err != nil {
		t.Error(err)
	}
	d.agree(t)
}

// All that waits for a sync which fails is told so, and nothing of it is applied.
func TestAllAreTold(t *testing.T) {
	d := newDesk(t, 64*kib)
	d.syncTime = 5 * time.Millisecond
	d.fails("sync root", unix.EIO)
	each(t, 16, func(n int) error {
		err := d.commit(create(n + 1))
		if errors.Is(err, unix.EIO) {
			return nil
		}
		return fmt.Errorf("commit %d got another answer: %w", n, err)
	})
	if d.syncs != 1 {
		t.Errorf("%d syncs", d.syncs)
	}
	d.view(func(c *catalog) {
		if len(c.open) != 0 {
			t.Errorf("%d operations are open", len(c.open))
		}
	})
}

// Nothing is lost where the slots are switched while others commit.
func TestSwitchUnderLoad(t *testing.T) {
	const writers, rounds = 8, 60
	d := newDesk(t, 48*kib)
	d.syncTime = 50 * time.Microsecond
	each(t, writers, func(writer int) error {
		for round := range rounds {
			n := 1 + writer*rounds + round
			if err := d.make(n); err != nil {
				return err
			}
			if round < 5 {
				continue // stays
			}
			if err := d.unmake(n, 1000+n); err != nil {
				return err
			}
		}
		return nil
	})
	d.agree(t)
	if h := d.root.Header(); h.Sequence < 20 || h.Peer != d.label.Header().Sequence {
		t.Errorf("%d switches, %+v", h.Sequence, h)
	}
	d.view(func(c *catalog) {
		if len(c.devices) != writers*5 || len(c.open) != 0 || len(c.ids) != writers*5 {
			t.Errorf("%d devices, %d operations, %d ids", len(c.devices), len(c.open), len(c.ids))
		}
	})
}

// An id whose end is in no checkpoint yet stays taken, also while one is written
// and if that fails.
func TestFreedUntilCheckpoint(t *testing.T) {
	d := newDesk(t, 64*kib)
	if err := errors.Join(d.make(1), d.unmake(1, 2)); err != nil {
		t.Fatal(err)
	}
	freed := func() (n int) {
		d.view(func(c *catalog) { n = len(c.freed) })
		return n
	}
	d.fails("write root", unix.ENOSPC)
	d.store.mu.Lock()
	err := d.switchSlots(d.catalog)
	d.store.mu.Unlock()
	if !errors.Is(err, unix.ENOSPC) || freed() != 1 {
		t.Errorf("%v, and %d ids are freed", err, freed())
	}
	d.fails("", nil)
	d.store.mu.Lock()
	err = d.switchSlots(d.catalog)
	d.store.mu.Unlock()
	if err != nil || freed() != 0 {
		t.Errorf("%v, and %d ids are freed", err, freed())
	}
}

// When no device may be added any more, all that are there can be deleted, one by
// one or at once.
func TestRoomForDeletes(t *testing.T) {
	for _, atOnce := range []bool{false, true} {
		d := newDesk(t, 256*kib)
		n := 1
		err := d.make(n)
		for ; err == nil; n++ {
			err = d.make(n + 1)
		}
		if !errors.Is(err, ErrPoolFull) || n < 100 {
			t.Errorf("%d devices: %v", n, err)
		}
		unmake := func(i int) error { return d.unmake(i+1, 10000+i) }
		if atOnce {
			each(t, n-1, unmake)
		} else {
			for i := range n - 1 {
				if err := unmake(i); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.agree(t)
		if err := d.make(n); err != nil {
			t.Error(err)
		}
	}
}

// Records that come at once are within the limit together, and each of them is: what
// is on its way counts once, from when it waits until it is applied.
func TestCommitWithin(t *testing.T) {
	d := newDesk(t, 256*kib)
	d.syncTime = time.Millisecond
	const most = 20 << 30
	within := func(promised, more int64) error {
		if promised%(1<<30) != 0 || more != 1<<30 {
			return fmt.Errorf("%d are promised, and %d more", promised, more)
		}
		if promised+more > most {
			return ErrPoolFull
		}
		return nil
	}
	var made atomic.Int32
	each(t, 64, func(n int) error {
		err := d.commitWithin(within, create(n+1))
		if err == nil {
			made.Add(1)
			return d.later(record{Do: doEnd, Op: uint64(n + 1)})
		}
		if errors.Is(err, ErrPoolFull) {
			return nil
		}
		return err
	})
	if made.Load() != 20 || len(d.coming) != 0 {
		t.Errorf("%d were made, %d are coming", made.Load(), len(d.coming))
	}
	d.agree(t)
}

// A record that cannot be replayed is not written, nor one that could not be replayed
// behind those on their way: at the next start the journal would be damaged.
func TestUnfit(t *testing.T) {
	d := newDesk(t, 64*kib)
	if err := d.make(1); err != nil {
		t.Fatal(err)
	}
	for _, r := range []record{create(1), {Do: doEnd, Op: 9}, {Do: doLabel, Name: "pvc-9"}} {
		if err := d.commit(r); !errors.Is(err, errBadRecord) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	d.syncTime = 20 * time.Millisecond
	var fit atomic.Int32
	each(t, 6, func(n int) error {
		r := create(10 + n%3)
		r.Op = uint64(100 + n)
		err := d.commit(r)
		if err == nil {
			fit.Add(1)
		} else if !errors.Is(err, errBadRecord) {
			return err
		}
		return nil
	})
	if err := d.writable(); fit.Load() != 3 || err != nil {
		t.Errorf("%d were written: %v", fit.Load(), err)
	}
	d.agree(t)
}

func TestNotOpenForWriting(t *testing.T) {
	d := newDesk(t, 64*kib)
	d.label = nil
	if err := d.commit(create(1)); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if err := d.writable(); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// Operation numbers are used once, also those that a record has brought.
func TestNextOp(t *testing.T) {
	d := newDesk(t, 64*kib)
	if n := d.nextOp(); n != 1 {
		t.Errorf("the first is %d", n)
	}
	if err := d.make(7); err != nil {
		t.Fatal(err)
	}
	for want := range uint64(3) {
		if n := d.nextOp(); n != 8+want {
			t.Errorf("the next is %d, want %d", n, 8+want)
		}
	}
}
