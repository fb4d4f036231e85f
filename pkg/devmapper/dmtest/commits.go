package dmtest

import (
	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

var commitStories = []story{
	{"a message answers ok though its commit fails", func(l *lab) {
		p := l.pool()
		p.metadataFails(ErrorWrites)
		_, err := p.Message(0, "create_thin 1")
		l.must(err)
		l.equal(p.status().Commits(), false)
	}},
	{"every verb tells when its commit fails", func(l *lab) {
		for _, verb := range []func(p *pool) error{
			func(p *pool) error { return p.CreateThin(2) },
			func(p *pool) error { return p.CreateSnap(2, 1) },
			func(p *pool) error { return p.Delete(1) },
			func(p *pool) error { return p.SetTransactionID(0, 1) },
		} {
			p := l.pool()
			p.create(1)
			p.metadataFails(ErrorWrites)
			l.refused(verb(p), dm.ErrUnknownOutcome)
			p.metadataWorks()
		}
	}},
	{"a metadata snapshot is refused when the commit before it fails", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.metadataFails(ErrorWrites)
		l.refused(p.ReserveMetadataSnap(), unix.EPERM)
		p.metadataWorks()
		l.equal(p.status().HeldRoot, uint64(0))
		l.equal(p.status().Commits(), false)
	}},
	{"the need for a check outlives the pool", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.metadataFails(ErrorWrites)
		l.refused(p.CreateThin(2), dm.ErrUnknownOutcome)
		p.metadataWorks()
		p.reopen()
		l.equal(p.status().NeedsCheck, true)
	}},
	{"what was lost is gone after the pool was opened anew", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.metadataFails(ErrorWrites)
		l.refused(p.CreateThin(2), dm.ErrUnknownOutcome)
		p.reboot()
		l.equal(p.has(1), true)
		l.equal(p.has(2), false)
	}},
	{"a disk that drops writes takes the pool back", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.metadataFails(DropWrites)
		p.create(2) // nobody can tell
		l.equal(p.has(2), true)
		p.reboot()
		l.equal(p.has(1), true)
		l.equal(p.has(2), false)
	}},
	{"what was answered survives a power cut", func(l *lab) {
		p := l.pool()
		p.create(1, 2)
		l.must(p.CreateSnap(3, 1))
		l.must(p.Delete(2))
		l.must(p.SetTransactionID(0, 7))
		p.reboot()
		l.equal([]bool{p.has(1), p.has(2), p.has(3)}, []bool{true, false, true})
		l.equal(p.status().TransactionID, uint64(7))
	}},
	{"what was synced survives a power cut", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(4, 1)
		l.must(v.Sync())
		p.reboot()
		p.open(1).wantBlock(4, 1)
	}},
	{"data written before a message is durable with it", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(4, 1)
		p.create(2)
		p.reboot()
		p.open(1).wantBlock(4, 1)
	}},
	{"a sync of new blocks commits, of old ones does not", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		l.must(v.Sync())
		meta, data := p.flushes()
		v.writeBlock(0, 2)
		l.must(v.Sync())
		metaAfter, dataAfter := p.flushes()
		l.equal([]int{metaAfter - meta, dataAfter - data}, []int{0, 1})
		v.writeBlock(1, 3)
		l.must(v.Sync())
		metaAfter, _ = p.flushes()
		l.equal(metaAfter-meta, 2)
	}},
	{"a block's last tenant cannot be read by the next", func(l *lab) {
		p, v := l.volumeOf(l.smallPool())
		v.fill(8)
		v.deactivate()
		l.must(p.Delete(1))
		p.create(2)
		w := p.open(2)
		for block := range 8 {
			_, err := w.WriteAt(pattern(1)[:4096], offset(block))
			l.must(err)
			w.wantBytes(offset(block)+4096, make([]byte, offset(1)-4096))
		}
	}},
}
