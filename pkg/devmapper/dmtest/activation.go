package dmtest

import (
	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

var activationStories = []story{
	{"missing thin", func(l *lab) {
		p := l.pool()
		name := l.name("thin")
		_, err := dm.Activate(l.kernel, name, "", p.thinTable(1))
		l.refused(err, unix.ENODATA)
		_, err = dm.ByName(l.kernel, name).Info()
		l.refused(err, unix.ENXIO)
	}},
	{"thin of a suspended pool", func(l *lab) {
		p := l.pool()
		p.create(1)
		table := p.thinTable(1)
		l.must(p.WhileSuspended(0, func() error {
			_, err := dm.Activate(l.kernel, l.name("thin"), "", table)
			l.refused(err, unix.EINVAL)
			return nil
		}))
	}},
	{"thin of what is no pool", func(l *lab) {
		zero := l.device("zero", "", dm.Whole(8, dm.Zero{}))
		_, err := dm.Activate(l.kernel, l.name("thin"), "", dm.Whole(8, dm.Thin{Pool: l.info(zero).Dev, ID: 1}))
		l.refused(err, unix.EINVAL)
	}},
	{"the kernel lets one thin be active twice", func(l *lab) {
		p := l.pool()
		p.create(1)
		a, b := p.open(1), p.open(1)
		a.writeBlock(0, 1)
		b.wantBlock(0, 1)
	}},
	{"a uuid lets one thin be active once", func(l *lab) {
		p := l.pool()
		p.create(1)
		l.device("thin", "dmtest-thin-1", p.thinTable(1))
		_, err := dm.Activate(l.kernel, l.name("thin"), "dmtest-thin-1", p.thinTable(1))
		l.refused(err, unix.EBUSY)
	}},
	{"an inactive table keeps a thin from being deleted", func(l *lab) {
		p := l.pool()
		p.create(1)
		d, err := dm.Create(l.kernel, l.name("loaded"), "")
		l.must(err)
		l.removeAtEnd(d)
		l.must(d.Load(p.thinTable(1)))
		l.equal(l.info(d).Inactive(), true)
		l.refused(p.Delete(1), unix.EBUSY)
		l.must(d.ClearInactive())
		l.must(p.Delete(1))
	}},
	{"pool with active thins stays", func(l *lab) {
		p, v := l.volume()
		l.refused(p.Remove(), unix.EBUSY)
		v.deactivate()
		l.must(p.Remove())
	}},
	{"second pool on the same metadata", func(l *lab) {
		p := l.pool()
		_, err := dm.Activate(l.kernel, l.name("pool"), "", dm.Whole(dataSize, p.table))
		l.refused(err, unix.EBUSY)
	}},
	{"other metadata under a living pool", func(l *lab) {
		p := l.pool()
		table := p.table
		table.Metadata = l.disk(metaSize).Dev()
		l.refused(p.Load(dm.Whole(dataSize, table)), unix.EINVAL)
	}},
	{"block size is for life", func(l *lab) {
		p := l.pool()
		l.must(p.Remove())
		p.table.BlockSize *= 2
		_, err := dm.Activate(l.kernel, l.name("pool"), "", dm.Whole(dataSize, p.table))
		l.refused(err, unix.EINVAL)
	}},
	{"block sizes that no pool has", func(l *lab) {
		meta, data := l.disk(metaSize), l.disk(dataSize)
		for _, size := range []dm.Sectors{0, dm.MinBlockSize / 2, dm.MinBlockSize + 1, 2 * dm.MaxBlockSize} {
			table := dm.ThinPool{Metadata: meta.Dev(), Data: data.Dev(), BlockSize: size}
			_, err := dm.Activate(l.kernel, l.name("pool"), "", dm.Whole(dataSize, table))
			l.refused(err, unix.EINVAL)
		}
	}},
	{"zeros are formatted, a pool is opened", func(l *lab) {
		p := l.pool()
		p.create(1)
		p.reopen()
		l.equal(p.has(1), true)
		l.must(p.Remove())
		f, err := p.flakeyFile()
		l.must(err)
		_, err = f.WriteAt(make([]byte, 4096), 0)
		l.must(err)
		l.must(f.Close())
		p.Pool = dm.Pool{Device: l.device("pool", "", dm.Whole(dataSize, p.table))}
		l.equal(p.has(1), false)
	}},
	{"a superblock of another kind is refused", func(l *lab) {
		p := l.pool()
		l.must(p.Remove())
		f, err := p.flakeyFile()
		l.must(err)
		_, err = f.WriteAt(pattern(1)[:4096], 0)
		l.must(err)
		l.must(f.Close())
		if _, err := dm.Activate(l.kernel, l.name("pool"), "", dm.Whole(dataSize, p.table)); err == nil {
			l.Fatal("a pool was made of noise")
		}
	}},
	{"a blank thin has nothing mapped and reads as zeros", func(l *lab) {
		_, v := l.volume()
		l.equal(v.thinStatus(), dm.ThinStatus{})
		v.wantBytes(0, make([]byte, 4096))
		l.equal(v.thinStatus(), dm.ThinStatus{})
	}},
	{"thin status counts mapped blocks", func(l *lab) {
		_, v := l.volume()
		v.writeBlock(0, 1)
		v.writeBlock(9, 2)
		l.equal(v.thinStatus(), dm.ThinStatus{Mapped: 2 * blockSize, Highest: 10*blockSize - 1})
	}},
	{"status of another kind of device", func(l *lab) {
		d := l.device("zero", "", dm.Whole(8, dm.Zero{}))
		if _, err := d.ThinStatus(); err == nil {
			l.Fatal("a zero device has the status of a thin")
		}
		if _, err := (dm.Pool{Device: d}).PoolStatus(); err == nil {
			l.Fatal("a zero device has the status of a pool")
		}
	}},
	{"read-only thin", func(l *lab) {
		p := l.pool()
		p.create(1)
		d, err := dm.Create(l.kernel, l.name("thin"), "")
		l.must(err)
		l.removeAtEnd(d)
		l.must(d.LoadReadOnly(p.thinTable(1)))
		l.must(d.Resume())
		l.equal(l.info(d).Flags&dm.ReadOnly != 0, true)
		larger := p.thinTable(1)
		larger[0].Length *= 2
		l.must(d.Swap(larger, 0))
		l.equal(l.info(d).Flags&dm.ReadOnly != 0, true)
	}},
}

// flakeyFile opens the device that the metadata lies on.
func (p *pool) flakeyFile() (File, error) {
	return p.lab.Open(p.lab.info(p.flakey))
}
