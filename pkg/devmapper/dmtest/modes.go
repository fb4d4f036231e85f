package dmtest

import (
	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// noMessages fails unless the pool refuses every message, a probe included.
func (p *pool) noMessages() {
	p.lab.Helper()
	for _, verb := range []func() error{
		func() error { return p.CreateThin(100) },
		func() error { return p.CreateSnap(100, 1) },
		func() error { return p.Delete(1) },
		func() error { return p.SetTransactionID(0, 1) },
		p.ReserveMetadataSnap, p.ReleaseMetadataSnap,
		func() error { _, err := p.Has(1); return err },
	} {
		p.lab.refused(verb(), unix.EOPNOTSUPP)
	}
}

// fill writes blocks of v until one is refused, and returns how many were not.
func (v *volume) fill(most int) int {
	for block := range most {
		if v.tryWrite(block, uint64(block)) != nil {
			return block
		}
	}
	return most
}

// exhaust creates thins until the pool is out of metadata space, and returns the
// last one that it answered for.
func (p *pool) exhaust() (last dm.DeviceID) {
	p.lab.Helper()
	for id := dm.DeviceID(1); id < 2000; id++ {
		err := p.CreateThin(id)
		if err == nil {
			continue
		}
		p.lab.refused(err, dm.ErrUnknownOutcome) // created, and the commit was the last one
		p.lab.equal(p.status().OutOfMetadata(), true)
		return id
	}
	p.lab.Fatal("the metadata never became full")
	return 0
}

var modeStories = []story{
	{"rw", func(l *lab) {
		p := l.pool()
		s := p.status()
		l.equal(s.Mode, dm.PoolWrite)
		l.equal(s.Known() && s.Commits(), true)
		l.equal(s.Data, dm.Usage{Used: 0, Total: uint64(dataSize / blockSize)})
		l.equal(s.Metadata.Total, uint64(metaSize/dm.MetadataBlockSize))
		l.equal(s.ErrorIfNoSpace, true)
	}},
	{"features show in the status", func(l *lab) {
		p := l.pool(func(t *dm.ThinPool) { t.ErrorIfNoSpace, t.IgnoreDiscard = false, true })
		s := p.status()
		l.equal(s.ErrorIfNoSpace, false)
		l.equal(s.Discard, dm.IgnoreDiscard)
	}},
	{"ro by request", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.table.ReadOnly = true
		p.reopen()
		l.equal(p.status().Mode, dm.PoolReadOnly)
		l.equal(p.status().OutOfMetadata(), false)
		p.noMessages()
		v := p.open(1)
		v.wantBytes(0, make([]byte, 4096))
		l.refused(v.tryWrite(0, 1), unix.EIO)
	}},
	{"out of data space, failing writes", func(l *lab) {
		p, v := l.volumeOf(l.smallPool())
		l.equal(v.fill(20), 8)
		l.refused(v.tryWrite(8, 1), unix.ENOSPC)
		s := p.status()
		l.equal(s.Mode, dm.PoolOutOfDataSpace)
		l.equal(s.Commits(), true)
		l.equal(s.Data.Free(), uint64(0))
		v.wantBlock(3, 3)
		v.writeBlock(3, 99) // what is mapped can be written
	}},
	{"out of data space, messages work and deleting helps", func(l *lab) {
		p := l.smallPool()
		p.create(1, 2)
		v, w := p.open(1), p.open(2)
		v.fill(20)
		p.create(3)
		l.must(p.SetTransactionID(0, 1))
		v.deactivate()
		l.must(p.Delete(1))
		l.equal(p.status().Mode, dm.PoolWrite)
		w.writeBlock(0, 1)
	}},
	{"out of data space, discarding helps", func(l *lab) {
		p, v := l.volumeOf(l.smallPool())
		v.fill(20)
		l.must(v.Discard(offset(2), offset(2)))
		_, err := p.Commit()
		l.must(err)
		l.equal(p.status().Mode, dm.PoolWrite)
		v.writeBlock(12, 1)
	}},
	{"out of data space, a queued write goes on after growth", func(l *lab) {
		data := l.disk(2 * smallData)
		p := l.poolOn(l.disk(metaSize), data, smallData, func(t *dm.ThinPool) { t.ErrorIfNoSpace = false })
		p.create(1)
		v := p.open(1)
		done := make(chan int)
		go func() { done <- v.fill(12) }()
		l.waitFor("the pool to be full", func() bool { return p.status().Mode == dm.PoolOutOfDataSpace })
		l.must(p.Swap(dm.Whole(2*smallData, p.table), dm.NoFlush))
		l.equal(<-done, 12)
		l.equal(p.status().Mode, dm.PoolWrite)
		v.wantBlock(11, 11)
	}},
	{"out of metadata, even deleting is refused", func(l *lab) {
		p := l.pool()
		p.exhaust()
		p.noMessages()
		l.equal(p.status().NeedsCheck, false)
	}},
	{"out of metadata, the last change was made", func(l *lab) {
		p := l.pool()
		last := p.exhaust()
		p.growMetadata(2 * metaSize)
		l.equal(p.status().Mode, dm.PoolWrite)
		l.equal(p.has(last), true)
		l.must(p.Delete(last))
		l.must(p.Delete(1))
	}},
	{"a failed commit makes the pool ro for good", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.metadataFails(ErrorWrites)
		l.refused(p.CreateThin(2), dm.ErrUnknownOutcome)
		p.metadataWorks()
		s := p.status()
		l.equal(s.Mode, dm.PoolReadOnly)
		l.equal(s.NeedsCheck, true)
		l.equal(s.Commits() || s.OutOfMetadata(), false)
		p.noMessages()
		l.must(p.Swap(dm.Whole(dataSize, p.table), 0))
		l.equal(p.status().Mode, dm.PoolReadOnly)
	}},
	{"a pool that needs a check reads, and does not grow", func(l *lab) {
		p := l.poolOn(l.disk(metaSize), l.disk(2*smallData), smallData)
		p.create(1)
		v := p.open(1)
		v.writeBlock(0, 1)
		l.must(v.Sync())
		p.metadataFails(ErrorWrites)
		l.refused(p.CreateThin(2), dm.ErrUnknownOutcome)
		p.metadataWorks()
		v.wantBlock(0, 1)
		l.must(p.Swap(dm.Whole(2*smallData, p.table), 0))
		l.equal(p.status().Data.Total, uint64(8))
	}},
	{"fail", func(l *lab) {
		p := l.pool()
		p.create(1, 3)
		v := p.open(1)
		v.writeBlock(0, 1)
		l.must(v.Sync())
		p.metadataFails()
		l.refused(p.CreateThin(2), dm.ErrUnknownOutcome)
		p.metadataWorks()
		s := p.status()
		l.equal(s.Mode, dm.PoolFail)
		l.equal(s.Known() || s.Commits(), false)
		_, err := p.TransactionID()
		l.equal(err != nil, true)
		p.noMessages()
		l.equal(v.thinStatus().State, dm.ThinFail)
		_, err = v.ReadAt(make([]byte, 4096), 0)
		l.refused(err, unix.EIO)
		_, err = dm.Activate(l.kernel, l.name("thin"), "", p.thinTable(3))
		l.refused(err, unix.EINVAL)
	}},
	{"a failed pool is well again when it was opened anew", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.metadataFails()
		l.refused(p.CreateThin(2), dm.ErrUnknownOutcome)
		p.metadataWorks()
		p.reopen()
		l.equal(p.status().Known(), true)
	}},
}
