package dmtest

import (
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// growMetadata grows the metadata disk and what lies on it, and has the pool look.
func (p *pool) growMetadata(size dm.Sectors) {
	p.lab.Helper()
	p.lab.must(p.meta.Grow(size))
	p.lab.must(p.flakey.Swap(p.wellTable(size), dm.SkipLockFS|dm.NoFlush))
	p.lab.must(p.Swap(dm.Whole(p.length, p.table), dm.SkipLockFS|dm.NoFlush))
}

var growthStories = []story{
	{"of data", func(l *lab) {
		data := l.disk(smallData)
		p := l.poolOn(l.disk(metaSize), data, smallData)
		p.create(1)
		v := p.open(1)
		l.equal(v.fill(20), 8)
		l.must(data.Grow(2 * smallData))
		l.must(p.Swap(dm.Whole(2*smallData, p.table), dm.NoFlush))
		l.equal(p.status().Data.Total, uint64(16))
		l.equal(p.status().Mode, dm.PoolWrite)
		v.writeBlock(12, 12)
		v.wantBlock(12, 12)
	}},
	{"of data by less than a block", func(l *lab) {
		data := l.disk(smallData)
		p := l.poolOn(l.disk(metaSize), data, smallData)
		l.must(data.Grow(smallData + blockSize/2))
		l.must(p.Swap(dm.Whole(smallData+blockSize/2, p.table), 0))
		l.equal(p.status().Data.Total, uint64(8))
	}},
	{"of data beyond its device", func(l *lab) {
		p, v := l.volume()
		if err := p.Swap(dm.Whole(2*dataSize, p.table), 0); err == nil {
			l.Fatal("a pool grew beyond its device")
		}
		l.equal(p.status().Data.Total, uint64(dataSize/blockSize))
		v.runs()
	}},
	{"of metadata", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.growMetadata(2 * metaSize)
		l.equal(p.status().Metadata.Total, uint64(2*metaSize/dm.MetadataBlockSize))
		p.create(2)
		p.table.LowWater = 3
		l.must(p.Swap(dm.Whole(p.length, p.table), 0))
		l.equal(p.has(1) && p.has(2), true)
	}},
	{"of a thin", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(0, 1)
		table := p.thinTable(1)
		table[0].Length *= 2
		l.must(v.Swap(table, 0))
		last := int(table[0].Length/blockSize) - 1
		v.writeBlock(last, 2)
		v.wantBlock(last, 2)
		v.wantBlock(0, 1)
	}},
	{"of a thin that shrank shows its old data", func(l *lab) {
		p, v := l.volume()
		v.writeBlock(100, 1)
		small := p.thinTable(1)
		small[0].Length /= 2
		l.must(v.Swap(small, 0))
		l.must(v.Swap(p.thinTable(1), 0))
		v.wantBlock(100, 1)
	}},
	{"survives a power cut", func(l *lab) {
		data := l.disk(2 * smallData)
		p := l.poolOn(l.disk(metaSize), data, smallData)
		p.length = 2 * smallData
		l.must(p.Swap(dm.Whole(p.length, p.table), 0))
		p.reboot()
		l.equal(p.status().Data.Total, uint64(16))
	}},
}
