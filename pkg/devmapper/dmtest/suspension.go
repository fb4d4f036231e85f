package dmtest

import (
	"errors"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// runs fails unless the device is not suspended and does I/O.
func (v *volume) runs() {
	v.lab.Helper()
	v.lab.equal(v.lab.info(v.Device).Suspended(), false)
	v.writeBlock(15, 15)
	v.wantBlock(15, 15)
}

var suspensionStories = []story{
	{"holds back writes", func(l *lab) {
		_, v := l.volume()
		l.must(v.Suspend(0))
		done := make(chan error)
		go func() { done <- v.tryWrite(0, 1) }()
		select {
		case err := <-done:
			l.Errorf("a write passed a suspended device: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		l.must(v.Resume())
		l.must(<-done)
		v.wantBlock(0, 1)
	}},
	{"is the same twice", func(l *lab) {
		_, v := l.volume()
		l.must(v.Suspend(dm.SkipLockFS))
		l.must(v.Suspend(dm.SkipLockFS | dm.NoFlush))
		l.must(v.Resume())
		l.must(v.Resume())
		v.runs()
	}},
	{"ends when the work fails", func(l *lab) {
		_, v := l.volume()
		sad := errors.New("sad")
		l.refused(v.WhileSuspended(0, func() error { return sad }), sad)
		v.runs()
	}},
	{"ends when the work panics", func(l *lab) {
		_, v := l.volume()
		func() {
			defer func() { _ = recover() }()
			_ = v.WhileSuspended(0, func() error { panic("sad") })
		}()
		v.runs()
	}},
	{"an inactive table left behind goes live at the next resume", func(l *lab) {
		p := l.pool()
		p.create(1, 2)
		v := p.open(1)
		l.must(v.Load(p.thinTable(2)))
		l.must(v.Suspend(0))
		l.must(v.Resume())
		have, err := v.Table()
		l.must(err)
		l.equal(have, p.thinTable(2))
	}},
	{"WhileSuspended clears an inactive table first", func(l *lab) {
		p := l.pool()
		p.create(1, 2)
		v := p.open(1)
		l.must(v.Load(p.thinTable(2)))
		waiting, err := v.InactiveTable()
		l.must(err)
		l.equal(waiting, p.thinTable(2))
		l.must(v.WhileSuspended(0, func() error { return nil }))
		have, err := v.Table()
		l.must(err)
		l.equal(have, p.thinTable(1))
		l.equal(l.info(v.Device).Inactive(), false)
	}},
	{"a failed resume leaves the device suspended with the bad table", func(l *lab) {
		p := l.pool()
		good, bad := dm.Whole(dataSize, p.table), dm.Whole(dataSize/2, p.table)
		l.must(p.Load(bad))
		l.must(p.Suspend(0))
		for range 2 {
			if err := p.Resume(); err == nil {
				l.Fatal("a pool shrank")
			}
		}
		l.equal(l.info(p.Device).Suspended(), true)
		have, err := p.Table()
		l.must(err)
		l.equal(have, bad)
		l.must(p.Load(good))
		l.must(p.Resume())
		l.equal(l.info(p.Device).Suspended(), false)
		p.create(1)
		p.open(1).runs()
	}},
	{"Swap finds the way back by itself", func(l *lab) {
		p, v := l.volume()
		if err := p.Swap(dm.Whole(dataSize/2, p.table), 0); err == nil {
			l.Fatal("a pool shrank")
		}
		have, err := p.Table()
		l.must(err)
		l.equal(have, dm.Whole(dataSize, p.table))
		v.runs()
	}},
	{"Swap with a table that does not load changes nothing", func(l *lab) {
		p, v := l.volume()
		if err := v.Swap(p.thinTable(2), 0); err == nil {
			l.Fatal("a missing thin was loaded")
		}
		l.equal(l.info(v.Device).Inactive(), false)
		v.runs()
	}},
	{"a suspended pool holds back its thins", func(l *lab) {
		p, v := l.volume()
		done := make(chan error)
		l.must(p.WhileSuspended(0, func() error {
			go func() { done <- v.tryWrite(0, 1) }()
			select {
			case err := <-done:
				l.Errorf("a write passed a suspended pool: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			return nil
		}))
		l.must(<-done)
		v.runs()
	}},
}
