package dmtest

import (
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

var snapshotStories = []story{
	{"of an inactive origin", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		v.deactivate()
		l.must(p.CreateSnap(2, 1))
		p.open(2).wantBlock(0, 1)
		p.open(1).wantBlock(0, 1)
	}},
	{"of an active origin, suspended meanwhile", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		l.must(v.WhileSuspended(0, func() error {
			l.equal(l.info(v.Device).Suspended(), true)
			return p.CreateSnap(2, 1)
		}))
		v.writeBlock(0, 2)
		v.writeBlock(1, 3)
		s := p.open(2)
		s.wantBlock(0, 1)
		s.wantBytes(offset(1), make([]byte, 4096))
		v.wantBlock(0, 2)
	}},
	{"shares blocks until they are written", func(l *lab) {
		p, v := l.volume()
		for block := range 4 {
			v.writeBlock(block, uint64(block))
		}
		l.must(v.Sync())
		l.must(v.WhileSuspended(0, func() error { return p.CreateSnap(2, 1) }))
		l.equal(p.status().Data.Used, uint64(4))
		v.writeBlock(0, 99)
		l.must(v.Sync())
		l.equal(p.status().Data.Used, uint64(5))
		l.equal(v.thinStatus().Mapped, 4*blockSize)
	}},
	{"a partial write copies the rest of the block", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		l.must(v.WhileSuspended(0, func() error { return p.CreateSnap(2, 1) }))
		_, err := v.WriteAt(pattern(2)[:4096], 8192)
		l.must(err)
		p.open(2).wantBlock(0, 1)
		v.wantBytes(0, pattern(1)[:8192])
		v.wantBytes(8192, pattern(2)[:4096])
		v.wantBytes(12288, pattern(1)[12288:])
	}},
	{"outlives its origin", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		v.deactivate()
		l.must(p.CreateSnap(2, 1))
		l.must(p.Delete(1))
		l.equal(p.status().Data.Used, uint64(1))
		p.open(2).wantBlock(0, 1)
	}},
	{"a held metadata snapshot keeps what is deleted", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		v.writeBlock(1, 2)
		l.must(v.Sync())
		l.must(p.ReserveMetadataSnap())
		v.writeBlock(0, 3) // in place: the data is not held, only its block
		v.wantBlock(0, 3)
		v.writeBlock(2, 4)
		l.must(v.Sync())
		l.equal(p.status().Data.Used, uint64(3))
		v.deactivate()
		l.must(p.Delete(1))
		l.equal(p.status().Data.Used, uint64(2))
		l.must(p.ReleaseMetadataSnap())
		l.equal(p.status().Data.Used, uint64(0))
	}},
	{"of a snapshot", func(l *lab) {
		p := l.pool()
		p.create(1)
		for id := dm.DeviceID(1); id < 5; id++ {
			v := p.open(id)
			v.writeBlock(int(id), uint64(id))
			v.deactivate()
			l.must(p.CreateSnap(id+1, id))
		}
		last := p.open(5)
		for block := 1; block < 5; block++ {
			last.wantBlock(block, uint64(block))
		}
	}},
	{"is mapped as its origin", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(7, 1)
		l.must(v.WhileSuspended(0, func() error { return p.CreateSnap(2, 1) }))
		l.equal(p.open(2).thinStatus(), v.thinStatus())
	}},
	{"discarding a shared block frees nothing", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		l.must(v.WhileSuspended(0, func() error { return p.CreateSnap(2, 1) }))
		l.must(v.Discard(0, offset(1)))
		l.must(v.Sync())
		l.equal(p.status().Data.Used, uint64(1))
		v.wantBytes(0, make([]byte, 4096))
		p.open(2).wantBlock(0, 1)
	}},
	{"deleting the last one frees its blocks", func(l *lab) {
		p, v := l.volume()
		v.fill(4)
		v.deactivate()
		l.must(p.CreateSnap(2, 1))
		l.must(p.Delete(1))
		l.equal(p.status().Data.Used, uint64(4))
		l.must(p.Delete(2))
		l.equal(p.status().Data.Used, uint64(0))
	}},
}
