package dmtest

import (
	"context"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

const patience = 10 * time.Second

// waitFor fails if something does not come true in time.
func (l *lab) waitFor(what string, done func() bool) {
	l.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

func (l *lab) watch() dm.Watch {
	l.Helper()
	w, err := l.kernel.Watch()
	l.must(err)
	l.Cleanup(func() { l.must(w.Close()) })
	return w
}

// wakes fails unless the watch tells of an event, and none comes after it.
func (l *lab) wakes(w dm.Watch) {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l.must(w.Wait(ctx))
}

func (l *lab) quiet(w dm.Watch) {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	l.refused(w.Wait(ctx), context.DeadlineExceeded)
}

var eventStories = []story{
	{"low water", func(l *lab) {
		p := l.poolOn(l.disk(metaSize), l.disk(smallData), smallData, func(t *dm.ThinPool) { t.LowWater = 4 })
		p.create(1)
		v := p.open(1)
		w := l.watch()
		before := l.info(p.Device).EventNr
		v.fill(3)
		l.quiet(w)
		l.equal(l.info(p.Device).EventNr, before)
		v.writeBlock(3, 3)
		v.writeBlock(4, 4)
		l.wakes(w)
		l.equal(l.info(p.Device).EventNr, before+1)
		v.writeBlock(5, 5)
		l.quiet(w)
	}},
	{"out of data space and back", func(l *lab) {
		p, v := l.volumeOf(l.smallPool())
		v.fill(8)
		w := l.watch()
		before := l.info(p.Device).EventNr
		l.equal(v.tryWrite(8, 8) != nil, true)
		l.wakes(w)
		l.equal(l.info(p.Device).EventNr > before, true)
		before = l.info(p.Device).EventNr
		l.must(v.Discard(0, offset(1)))
		_, err := p.Commit()
		l.must(err)
		l.wakes(w)
		l.equal(l.info(p.Device).EventNr > before, true)
	}},
	{"a failed commit", func(l *lab) {
		p := l.pool()
		p.metadataFails(ErrorWrites)
		w := l.watch()
		l.refused(p.CreateThin(1), dm.ErrUnknownOutcome)
		l.wakes(w)
		p.metadataWorks()
	}},
	{"no event is missed between two waits", func(l *lab) {
		w := l.watch()
		l.quiet(w)
		l.device("zero", "", dm.Whole(8, dm.Zero{}))
		l.wakes(w)
		l.quiet(w)
		l.device("zero", "", dm.Whole(8, dm.Zero{}))
		l.wakes(w)
	}},
	{"two watches hear the same event", func(l *lab) {
		a, b := l.watch(), l.watch()
		l.device("zero", "", dm.Whole(8, dm.Zero{}))
		l.wakes(a)
		l.wakes(b)
	}},
	{"a wait is called off", func(l *lab) {
		w := l.watch()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- w.Wait(ctx) }()
		time.Sleep(10 * time.Millisecond)
		cancel()
		l.refused(<-done, context.Canceled)
		l.device("zero", "", dm.Whole(8, dm.Zero{}))
		l.wakes(w)
	}},
	{"waiting for one device", func(l *lab) {
		p, v := l.volumeOf(l.smallPool())
		v.fill(8)
		seen := l.info(p.Device).EventNr
		done := make(chan dm.Info)
		go func() {
			info, err := p.Wait(seen)
			if err != nil {
				l.Error(err)
			}
			done <- info
		}()
		l.equal(v.tryWrite(8, 8) != nil, true)
		l.equal((<-done).EventNr > seen, true)
	}},
}
