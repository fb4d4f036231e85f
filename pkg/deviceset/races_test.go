package deviceset_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A watched machine is a simulated one of which a test is told what it is about to be
// asked, and may have it wait or fail.
type watched struct {
	*simulated.Machine

	mu       sync.Mutex
	request  func(dm.Request) error // before each
	metadata func()                 // after it was read
	sync     func()                 // before each of the journal under the root
	discard  func()                 // before each
}

// watch changes what is told.
func (m *watched) watch(change func(*watched)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *watched) Do(r dm.Request) (dm.Reply, error) {
	m.mu.Lock()
	tell := m.request
	m.mu.Unlock()
	if tell != nil {
		if err := tell(r); err != nil {
			return dm.Reply{}, err
		}
	}
	return m.Machine.Do(r)
}

func (m *watched) Metadata(dev dm.DevNo) (deviceset.Metadata, error) {
	read, err := m.Machine.Metadata(dev)
	return watchedMetadata{read, m}, err
}

type watchedMetadata struct {
	deviceset.Metadata
	m *watched
}

func (w watchedMetadata) Close() error {
	err := w.Metadata.Close()
	w.m.mu.Lock()
	tell := w.m.metadata
	w.m.mu.Unlock()
	if tell != nil {
		tell()
	}
	return err
}

func (m *watched) OpenSlots(root string) (slots [2]deviceset.Block, err error) {
	slots, err = m.Machine.OpenSlots(root)
	for i, slot := range slots {
		if slot != nil {
			slots[i] = watchedSlot{slot, m}
		}
	}
	return slots, err
}

type watchedSlot struct {
	deviceset.Block
	m *watched
}

func (w watchedSlot) Sync() error {
	w.m.mu.Lock()
	tell := w.m.sync
	w.m.mu.Unlock()
	if tell != nil {
		tell()
	}
	return w.Block.Sync()
}

func (m *watched) OpenDevice(i dm.Info, exclusive bool) (deviceset.Block, error) {
	b, err := m.Machine.OpenDevice(i, exclusive)
	if err != nil {
		return nil, err
	}
	return watchedDevice{b, m}, nil
}

type watchedDevice struct {
	deviceset.Block
	m *watched
}

func (w watchedDevice) Discard(at, length int64) error {
	w.m.mu.Lock()
	tell := w.m.discard
	w.m.mu.Unlock()
	if tell != nil {
		tell()
	}
	return w.Block.Discard(at, length)
}

func openWatched(t testing.TB, w *simulated.World, options ...string) (*life, *watched) {
	t.Helper()
	m := &watched{Machine: w.Process(nil)}
	l := &life{ground: simulatedGround{w}, world: w, machine: m.Machine, acked: model{}}
	var err error
	l.set, err = deviceset.OpenQuiet(m, root, label, slices.Concat(poolOptions, options)...)
	must(t, err)
	return l, m
}

// opensAgain kills the process and fails unless the next one finds all in order.
func opensAgain(t testing.TB, w *simulated.World) *life {
	t.Helper()
	w.Kill()
	l, _ := openWatched(t, w)
	st := l.set.Status()
	equals(t, "read-only, ghosts, quarantined", []any{st.ReadOnly, len(st.Ghosts), len(st.Quarantined)}, []any{"", 0, 0})
	must(t, l.checkAlive())
	return l
}

// moment is long enough for others to come to where they wait.
const moment = 30 * time.Millisecond

const strayID = 7000

// stray makes a thin device that nobody knows of.
func (l *life) stray(t testing.TB) {
	t.Helper()
	a, err := l.set.Device("a")
	must(t, err)
	must(t, l.pool().CreateSnap(strayID, a.ID))
}

// Of two that adopt a thin device at once one gets it.
func TestAdoptedOnce(t *testing.T) {
	w, _ := prepared(t)
	l, m := openWatched(t, w)
	l.stray(t)
	m.watch(func(m *watched) {
		m.metadata = func() { time.Sleep(moment) }
		m.sync = m.metadata
	})
	errs := atOnce(2, func(n int) error { return l.set.AdoptDevice(strayID, fmt.Sprint("name-", n), 0) })
	equals(t, "refused", []bool{errors.Is(errs[0], deviceset.ErrExists), errors.Is(errs[1], deviceset.ErrExists)}, []bool{errs[0] != nil, errs[1] != nil})
	equals(t, "both", errs[0] == nil, errs[1] != nil)
	opensAgain(t, w)
}

// atOnce calls do for 0 to n-1 and returns their errors.
func atOnce(n int, do func(int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errs
}

// A name that a create may have is not given to another device.
func TestAdoptedByNameInTheMaking(t *testing.T) {
	w, _ := prepared(t)
	l, m := openWatched(t, w)
	l.stray(t)
	eio := func(r dm.Request) error {
		commits := r.Command == dm.TableStatus && r.Flags&dm.NoFlush == 0
		if commits || r.Command == dm.TargetMsg && strings.HasPrefix(r.Message, "create_thin") {
			return unix.EIO
		}
		return nil
	}
	m.watch(func(m *watched) { m.request = eio })
	if err := l.set.AddDevice("x", "", blank1M); err == nil {
		t.Fatal("it was made")
	}
	equals(t, "open creates", l.set.Status().OpenOperations, 1)
	refuses(t, l.set.AdoptDevice(strayID, "x", 0), deviceset.ErrUnavailable)
	m.watch(func(m *watched) { m.request = nil })
	must(t, l.set.AdoptDevice(strayID, "x", 0)) // the create never happened
	equals(t, "open creates", l.set.Status().OpenOperations, 0)
	l = opensAgain(t, w)
	x, err := l.set.Device("x")
	must(t, err)
	equals(t, "id", x.ID, dm.DeviceID(strayID))
}

// A device that is just being deleted is not adopted: what is read of the pool has it
// still.
func TestAdoptedBesideADelete(t *testing.T) {
	w, _ := prepared(t)
	l, m := openWatched(t, w)
	a, err := l.set.Device("a")
	must(t, err)
	asked := false
	m.watch(func(m *watched) {
		m.request = func(r dm.Request) error {
			if r.Command == dm.TargetMsg && r.Message == fmt.Sprint("delete ", a.ID) {
				refuses(t, l.set.AdoptDevice(a.ID, "again", 0), deviceset.ErrExists)
				asked = true
			}
			return nil
		}
	})
	must(t, l.set.DeleteDevice("a", true))
	equals(t, "asked", asked, true)
	refuses(t, l.set.AdoptDevice(a.ID, "again", 0), deviceset.ErrNotFound)
	opensAgain(t, w)
}

// What is made while a device is adopted is known afterwards, and stays.
func TestMadeBesideAnAdoption(t *testing.T) {
	w, _ := prepared(t)
	l, m := openWatched(t, w)
	l.stray(t)
	var made sync.Once
	m.watch(func(m *watched) {
		m.metadata = func() {
			made.Do(func() {
				must(t, l.set.AddDevice("n", "", blank1M))
				must(t, l.set.DeleteDevice("b", true))
			})
		}
	})
	must(t, l.set.AdoptDevice(strayID, "x", 0))
	for range 2 {
		equals(t, "list", l.set.List(), []string{"a", "c", "n", "x"})
		equals(t, "ghosts and orphans", []int{len(l.set.Status().Ghosts), len(l.set.Status().Orphans)}, []int{0, 0})
		_, err := l.set.ActivateDevice("n")
		must(t, err)
		l = opensAgain(t, w)
	}
}

// Ends are not written into slots that are just being switched by the first change.
func TestEndsWhileTheJournalIsOpened(t *testing.T) {
	w, _ := prepared(t)
	l, _ := openWatched(t, w)
	must(t, l.set.AddDevice("n", "", blank1M)) // whose birth is learned at the next start
	must(t, l.set.WriteEnds())
	w.Kill()
	m := &watched{Machine: w.Process(nil)}
	commits := 0
	m.request = func(r dm.Request) error {
		if r.Command == dm.TableStatus && r.Flags == 0 {
			if commits++; commits == 2 {
				return unix.EIO // the start's own, so it opens no journal
			}
		}
		return nil
	}
	set, err := deviceset.OpenQuiet(m, root, label, poolOptions...)
	must(t, err)
	m.watch(func(m *watched) { m.sync = func() { time.Sleep(moment) } })
	errs := atOnce(3, func(n int) error {
		if n == 0 {
			return set.AddDevice("m", "", blank1M)
		}
		time.Sleep(time.Duration(n) * moment / 2)
		return set.WriteEnds()
	})
	must(t, errors.Join(errs...))
	must(t, set.AddDevice("o", "", blank1M))
	equals(t, "list", opensAgain(t, w).set.List(), []string{"a", "b", "c", "m", "n", "o"})
}

// Devices that are made or grown at once cannot pass the ratio together.
func TestRatioAtOnce(t *testing.T) {
	l, m := openWatched(t, newWorld(), "dm.overprovision_ratio=1")
	must(t, l.set.AddDevice("grown", "", blank1M))
	m.watch(func(m *watched) { m.sync = func() { time.Sleep(moment) } })
	of4M := map[string]string{"fs": "none", "size": "4M"}
	errs := atOnce(9, func(n int) error {
		if n == 0 {
			return l.set.GrowDevice("grown", 4*mib)
		}
		return l.set.AddDevice(fmt.Sprint("v", n), "", of4M)
	})
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			refuses(t, err, deviceset.ErrPoolFull)
		}
	}
	if st := l.set.Status(); st.OverProvisioning > 1 || made < 3 {
		t.Errorf("%d of 9 were admitted, %g is promised", made, st.OverProvisioning)
	}
}

// An origin that is gone when it is to be resumed was suspended and snapped all the
// same: the message is not sent a second time.
func TestOriginGoesWhileSuspended(t *testing.T) {
	w, _ := prepared(t)
	l, m := openWatched(t, w)
	_, err := l.set.ActivateDevice("a")
	must(t, err)
	a, err := l.set.Device("a")
	must(t, err)
	var messages atomic.Int32
	m.watch(func(m *watched) {
		m.request = func(r dm.Request) error {
			resumes := r.Command == dm.DevSuspend && r.Flags&dm.Suspend == 0
			switch {
			case r.Command == dm.TargetMsg && strings.HasSuffix(r.Message, fmt.Sprint(" ", a.ID)) && strings.HasPrefix(r.Message, "create_snap"):
				messages.Add(1)
			case messages.Load() == 1 && resumes && strings.HasSuffix(r.UUID, fmt.Sprint("-", a.ID)):
				return unix.ENXIO // its last user has closed it, and its removal was due
			}
			return nil
		}
	})
	_ = l.set.AddDevice("snap", "a", nil) // either answer will do
	equals(t, "messages", messages.Load(), int32(1))
	m.watch(func(m *watched) { m.request = nil })
	equals(t, "orphans", len(l.set.Status().Orphans), 0)
	equals(t, "orphans", len(opensAgain(t, w).set.Status().Orphans), 0)
}

// Whoever shuts down while that is going on waits for its end.
func TestShutdownWaitsForTheOther(t *testing.T) {
	w := newWorld()
	m := &watched{Machine: w.Process(nil)}
	set, err := deviceset.Open(m, root, true, poolOptions, nil, nil)
	must(t, err)
	must(t, set.AddDevice("a", "", blank1M))
	m.watch(func(m *watched) { m.sync = func() { time.Sleep(2 * moment) } })
	begin := time.Now()
	errs := atOnce(2, func(int) error {
		err := set.Shutdown(root)
		if time.Since(begin) < moment {
			return errors.New("it did not wait")
		}
		return err
	})
	must(t, errors.Join(errs...))
}

// A call that hangs is waited for, and when it has come back the set can be shut down.
func TestShutdownAgainAfterBusy(t *testing.T) {
	w := newWorld()
	m := &watched{Machine: w.Process(nil)}
	set, err := deviceset.Open(m, root, true, poolOptions, nil, nil)
	must(t, err)
	set.SetPatience(moment)
	stuck, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.watch(func(m *watched) { m.sync = func() { once.Do(func() { close(stuck); <-goOn }) } })
	var hanging sync.WaitGroup
	hanging.Go(func() { _ = set.AddDevice("a", "", blank1M) })
	<-stuck
	for range 2 {
		refuses(t, set.Shutdown(root), deviceset.ErrBusy)
		_, err = deviceset.OpenQuiet(w.Process(nil), root, label, poolOptions...)
		refuses(t, err, deviceset.ErrInUse)
	}
	close(goOn)
	hanging.Wait()
	must(t, set.Shutdown(root))
	opensAgain(t, w)
}
