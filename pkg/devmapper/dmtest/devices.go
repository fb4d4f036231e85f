package dmtest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

var deviceStories = []story{
	{"version", func(l *lab) {
		v, err := dm.GetVersion(l.kernel)
		l.must(err)
		if !v.AtLeast(4, 45) {
			l.Fatalf("interface version is %v", v)
		}
	}},
	{"target version", func(l *lab) {
		v, err := dm.GetTarget(l.kernel, "thin-pool")
		l.must(err)
		l.equal(v.Name, "thin-pool")
		if !v.AtLeast(1, 20) {
			l.Fatalf("target version is %v", v)
		}
		all, err := dm.Targets(l.kernel)
		l.must(err)
		found := false
		for _, target := range all {
			found = found || target == v
		}
		l.equal(found, true)
	}},
	{"no such target", func(l *lab) {
		_, err := dm.GetTarget(l.kernel, "no-such-target")
		l.refused(err, unix.EINVAL)
	}},
	{"unknown device", func(l *lab) {
		d := dm.ByName(l.kernel, "dmtest-nobody")
		for _, ask := range []func() error{
			func() error { _, err := d.Info(); return err },
			func() error { _, err := d.Status(); return err },
			func() error { _, err := d.Table(); return err },
			func() error { _, err := d.Deps(); return err },
			func() error { _, err := d.Message(0, "hello"); return err },
			func() error { _, err := d.Rename("dmtest-somebody"); return err },
			func() error { return d.Load(dm.Whole(8, dm.Zero{})) },
			func() error { return d.Suspend(0) },
			d.ClearInactive, d.Resume, d.Remove, d.RemoveDeferred,
			func() error { _, err := dm.ByUUID(l.kernel, "dmtest-nobody").Info(); return err },
		} {
			l.refused(ask(), unix.ENXIO)
		}
	}},
	{"error names operation and device", func(l *lab) {
		_, err := dm.ByName(l.kernel, "dmtest-nobody").Info()
		l.equal(err.Error(), "info dmtest-nobody: no such device or address")
	}},
	{"create without table", func(l *lab) {
		d, err := dm.Create(l.kernel, l.name("bare"), "dmtest-uuid")
		l.must(err)
		l.removeAtEnd(d)
		info := l.info(d)
		l.equal(info.UUID, "dmtest-uuid")
		l.equal(info.Active() || info.Inactive() || info.Suspended(), false)
		l.must(d.Resume())
		table, err := d.Table()
		l.must(err)
		l.equal(len(table), 0)
		deps, err := d.Deps()
		l.must(err)
		l.equal(len(deps), 0)
	}},
	{"name taken", func(l *lab) {
		d := l.device("zero", "", dm.Whole(8, dm.Zero{}))
		_, err := dm.Create(l.kernel, d.String(), "")
		l.refused(err, unix.EBUSY)
	}},
	{"uuid taken", func(l *lab) {
		l.device("zero", "dmtest-uuid", dm.Whole(8, dm.Zero{}))
		_, err := dm.Create(l.kernel, l.name("zero"), "dmtest-uuid")
		l.refused(err, unix.EBUSY)
	}},
	{"bad names", func(l *lab) {
		for _, name := range []string{"", "a/b", "a\x00b", strings.Repeat("n", 128)} {
			_, err := dm.Create(l.kernel, name, "")
			l.refused(err, unix.EINVAL)
		}
		_, err := dm.Create(l.kernel, l.name("long"), strings.Repeat("u", 129))
		l.refused(err, unix.EINVAL)
	}},
	{"longest names", func(l *lab) {
		d, err := dm.Create(l.kernel, strings.Repeat("n", 127), strings.Repeat("u", 128))
		l.must(err)
		l.removeAtEnd(d)
		l.equal(l.info(d).UUID, strings.Repeat("u", 128))
	}},
	{"found by uuid", func(l *lab) {
		d := l.device("zero", "dmtest-uuid", dm.Whole(8, dm.Zero{}))
		l.equal(l.info(dm.ByUUID(l.kernel, "dmtest-uuid")), l.info(d))
	}},
	{"rename", func(l *lab) {
		d := l.device("old", "dmtest-uuid", dm.Whole(8, dm.Zero{}))
		before := l.info(d)
		renamed, err := d.Rename(l.name("new"))
		l.must(err)
		l.removeAtEnd(renamed)
		_, err = d.Info()
		l.refused(err, unix.ENXIO)
		l.equal(l.info(renamed).Dev, before.Dev)
		l.equal(l.info(renamed).UUID, "dmtest-uuid")
	}},
	{"rename of a device known by its uuid", func(l *lab) {
		d := l.device("old", "dmtest-uuid", dm.Whole(8, dm.Zero{}))
		name := l.name("new")
		renamed, err := dm.ByUUID(l.kernel, "dmtest-uuid").Rename(name)
		l.must(err)
		l.removeAtEnd(renamed)
		_, err = d.Info()
		l.refused(err, unix.ENXIO)
		l.equal(l.info(renamed).Name, name)
		_, err = l.kernel.Do(dm.Request{Command: dm.DevRename, UUID: "dmtest-uuid", NewName: "dmtest-by-uuid"})
		l.refused(err, unix.ENXIO) // what the kernel itself makes of a uuid here
	}},
	{"rename to a name taken", func(l *lab) {
		a, b := l.device("a", "", dm.Whole(8, dm.Zero{})), l.device("b", "", dm.Whole(8, dm.Zero{}))
		_, err := a.Rename(b.String())
		l.refused(err, unix.EBUSY)
	}},
	{"table goes in and out", func(l *lab) {
		disk := l.disk(mib)
		table := dm.Table{
			{Start: 0, Length: 128, Target: dm.Linear{Dev: disk.Dev(), Start: 16}},
			{Start: 128, Length: 64, Target: dm.Zero{}},
			{Start: 192, Length: 8, Target: dm.ErrorTarget{}},
		}
		d := l.device("mixed", "", table)
		have, err := d.Table()
		l.must(err)
		l.equal(have, table)
		deps, err := d.Deps()
		l.must(err)
		l.equal(deps, []dm.DevNo{disk.Dev()})
	}},
	{"table of a thin and its pool", func(l *lab) {
		p := l.pool(func(t *dm.ThinPool) { t.NoDiscardPassdown, t.LowWater = true, 7 })
		p.create(3)
		have, err := p.Table()
		l.must(err)
		l.equal(have, dm.Whole(dataSize, p.table))
		v := p.open(3)
		have, err = v.Table()
		l.must(err)
		l.equal(have, p.thinTable(3))
	}},
	{"malformed tables", func(l *lab) {
		disk := l.disk(mib)
		d, err := dm.Create(l.kernel, l.name("bad"), "")
		l.must(err)
		l.removeAtEnd(d)
		for _, table := range []dm.Table{
			{},
			{{Start: 8, Length: 8, Target: dm.Zero{}}},
			{{Length: 8, Target: dm.Zero{}}, {Start: 16, Length: 8, Target: dm.Zero{}}},
			dm.Whole(0, dm.Zero{}),
			dm.Whole(8, dm.ThinPool{Metadata: disk.Dev(), Data: disk.Dev(), BlockSize: 100}),
		} {
			l.refused(d.Load(table), unix.EINVAL)
		}
		l.equal(l.info(d).Inactive(), false)
	}},
	{"activation of a bad table leaves nothing", func(l *lab) {
		name := l.name("bad")
		_, err := dm.Activate(l.kernel, name, "", dm.Table{{Start: 8, Length: 8, Target: dm.Zero{}}})
		l.refused(err, unix.EINVAL)
		_, err = dm.ByName(l.kernel, name).Info()
		l.refused(err, unix.ENXIO)
	}},
	{"list by prefix", func(l *lab) {
		a := l.device("list-a", "dmtest-UUID-1", dm.Whole(8, dm.Zero{}))
		b := l.device("list-b", "dmtest-UUID-2", dm.Whole(8, dm.Zero{}))
		l.device("other", "", dm.Whole(8, dm.Zero{}))
		for prefix, want := range map[[2]string]int{
			{"dmtest-list", ""}: 2, {"", "dmtest-UUID-"}: 2, {"", "dmtest-UUID-2"}: 1, {"dmtest-none", ""}: 0,
		} {
			have, err := dm.List(l.kernel, prefix[0], prefix[1])
			l.must(err)
			l.equal(len(have), want)
		}
		have, err := dm.List(l.kernel, a.String(), "")
		l.must(err)
		l.equal(have[0].UUID, "dmtest-UUID-1")
		have, err = dm.List(l.kernel, b.String(), "")
		l.must(err)
		info := l.info(b)
		l.equal(have, []dm.Listed{{Name: info.Name, UUID: info.UUID, Dev: info.Dev, EventNr: info.EventNr}})
	}},
	{"replies larger than the first buffer", func(l *lab) {
		const many = 70
		for range many {
			d, err := dm.Create(l.kernel, l.name(strings.Repeat("x", 60)), fmt.Sprintf("dmtest-%0100d", l.names))
			l.must(err)
			l.removeAtEnd(d)
		}
		have, err := dm.List(l.kernel, "dmtest-xxx", "")
		l.must(err)
		l.equal(len(have), many)

		disk := l.disk(mib)
		var table dm.Table
		for i := range dm.Sectors(300) {
			table = append(table, dm.Segment{Start: i, Length: 1, Target: dm.Linear{Dev: disk.Dev(), Start: 2 * i}})
		}
		read, err := l.device("many", "", table).Table()
		l.must(err)
		l.equal(read, table)
	}},
	{"remove while open", func(l *lab) {
		v := l.openDevice(l.device("open", "", dm.Whole(mib, dm.Zero{})))
		l.equal(l.info(v.Device).OpenCount, 1)
		l.refused(v.Remove(), unix.EBUSY)
	}},
	{"exclusive is against exclusive", func(l *lab) {
		d := l.device("zero", "", dm.Whole(mib, dm.Zero{}))
		a, b := l.openDevice(d), l.openExclusive(d)
		_, err := l.OpenExclusive(l.info(d))
		l.refused(err, unix.EBUSY)
		l.equal(l.info(d).OpenCount, 2)
		c := l.openDevice(d)
		c.writeBlock(0, 1)
		l.must(a.Close())
		l.must(c.Close())
		_, err = l.OpenExclusive(l.info(d)) // they had nothing to let go
		l.refused(err, unix.EBUSY)
		l.must(b.Close())
		l.must(l.openExclusive(d).Close())
	}},
	{"exclusive is against tables", func(l *lab) {
		zero := l.device("zero", "", dm.Whole(mib, dm.Zero{}))
		above := dm.Whole(mib, dm.Linear{Dev: l.info(zero).Dev})
		a, err := dm.Create(l.kernel, l.name("linear"), "")
		l.must(err)
		l.removeAtEnd(a)
		v := l.openExclusive(zero)
		l.refused(a.Load(above), unix.EBUSY)
		l.equal(l.info(zero).OpenCount, 1)
		l.must(v.Close())

		l.must(a.Load(above)) // an inactive table holds it too
		_, err = l.OpenExclusive(l.info(zero))
		l.refused(err, unix.EBUSY)
		l.must(l.openDevice(zero).Close())
		b := l.device("linear", "", above) // tables share
		l.must(a.ClearInactive())
		_, err = l.OpenExclusive(l.info(zero))
		l.refused(err, unix.EBUSY)
		l.must(b.Remove())
		l.must(l.openExclusive(zero).Close())
	}},
	{"exclusive is against pools and thins", func(l *lab) {
		p := l.pool()
		p.create(1)
		_, err := l.OpenExclusive(l.info(p.flakey))
		l.refused(err, unix.EBUSY)
		mine := l.openExclusive(p.Device) // no thin is active
		_, err = dm.Activate(l.kernel, l.name("thin"), "", p.thinTable(1))
		l.refused(err, unix.EBUSY)
		l.must(p.CreateThin(2)) // messages pass
		l.must(mine.Close())
		v := p.open(1)
		_, err = l.OpenExclusive(l.info(p.Device))
		l.refused(err, unix.EBUSY)
		v.deactivate()
		l.must(p.Remove())
		l.must(l.openExclusive(p.flakey).Close())
	}},
	{"what is open exclusively works as ever", func(l *lab) {
		p := l.pool()
		p.create(1)
		d := l.device("thin", "", p.thinTable(1))
		v := l.openExclusive(d)
		v.writeBlock(0, 1)
		l.must(d.WhileSuspended(0, func() error { return p.CreateSnap(2, 1) }))
		larger := p.thinTable(1)
		larger[0].Length *= 2
		l.must(d.Swap(larger, 0))
		v.wantBlock(0, 1)
		l.refused(d.Remove(), unix.EBUSY)
		l.must(d.RemoveDeferred())
		l.must(v.Close())
		l.waitFor("the device to go", func() bool { _, err := d.Info(); return err != nil })
	}},
	{"deferred removal", func(l *lab) {
		v := l.openDevice(l.device("deferred", "", dm.Whole(mib, dm.Zero{})))
		l.must(v.RemoveDeferred())
		l.equal(l.info(v.Device).RemovalDeferred(), true)
		l.must(v.Close())
		l.waitFor("the device to go", func() bool { _, err := v.Info(); return err != nil })
	}},
	{"deferred removal called off", func(l *lab) {
		v := l.openDevice(l.device("deferred", "", dm.Whole(mib, dm.Zero{})))
		l.must(v.RemoveDeferred())
		l.must(v.CancelDeferredRemove())
		l.must(v.Close())
		l.equal(l.info(v.Device).RemovalDeferred(), false)
	}},
	{"deferred removal of what is not open", func(l *lab) {
		d := l.device("closed", "", dm.Whole(8, dm.Zero{}))
		l.must(d.RemoveDeferred())
		_, err := d.Info()
		l.refused(err, unix.ENXIO)
	}},
	{"error and zero targets", func(l *lab) {
		e := l.openDevice(l.device("error", "", dm.Whole(mib, dm.ErrorTarget{})))
		_, err := e.ReadAt(make([]byte, 4096), 0)
		l.refused(err, unix.EIO)
		z := l.openDevice(l.device("zero", "", dm.Whole(mib, dm.Zero{})))
		z.writeBlock(0, 1)
		z.wantBytes(0, make([]byte, 4096))
	}},
}
