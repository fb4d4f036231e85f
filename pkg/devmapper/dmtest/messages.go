package dmtest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// refusals are the messages that a pool with thins 1 and 2, of which 2 is active,
// refuses, and how.
var refusals = []struct {
	message string
	errno   unix.Errno
}{
	{"create_thin 1", unix.EEXIST},
	{"create_thin 16777216", unix.EINVAL},
	{"create_thin -1", unix.EINVAL},
	{"create_thin one", unix.EINVAL},
	{"create_thin", unix.EINVAL},
	{"create_thin 3 4", unix.EINVAL},
	{"create_snap 1 2", unix.EEXIST},
	{"create_snap 3 4", unix.ENODATA},
	{"create_snap 16777216 1", unix.EINVAL},
	{"create_snap 3 16777216", unix.EINVAL},
	{"create_snap 3", unix.EINVAL},
	{"delete 3", unix.ENODATA},
	{"delete 2", unix.EBUSY},
	{"delete 16777216", unix.EINVAL},
	{"delete", unix.EINVAL},
	{"set_transaction_id 5 6", unix.EINVAL},
	{"set_transaction_id 0", unix.EINVAL},
	{"set_transaction_id zero one", unix.EINVAL},
	{"release_metadata_snap", unix.EINVAL},
	{"reserve_metadata_snap now", unix.EINVAL},
	{"no_such_message", unix.EINVAL},
	{"@no_such_message", unix.EINVAL},
	{" ", unix.EINVAL},
}

func refusalStories() (stories []story) {
	for _, r := range refusals {
		stories = append(stories, story{fmt.Sprintf("%q is %v", r.message, r.errno), func(l *lab) {
			p := l.pool()
			p.create(1, 2)
			p.open(2)
			before := p.status()
			_, err := p.Message(0, r.message)
			l.refused(err, r.errno)
			l.equal(p.status(), before)
		}})
	}
	return stories
}

var messageStories = append(refusalStories(), []story{
	{"create, probe, delete", func(l *lab) {
		p := l.pool()
		l.equal(p.has(7), false)
		p.create(7)
		l.equal(p.has(7), true)
		l.must(p.Delete(7))
		l.equal(p.has(7), false)
	}},
	{"smallest and largest id", func(l *lab) {
		p := l.pool()
		p.create(0, dm.MaxDeviceID)
		l.equal(p.has(0) && p.has(dm.MaxDeviceID), true)
	}},
	{"probe changes and flushes nothing", func(l *lab) {
		p := l.pool()
		p.create(1)
		status := p.status()
		meta, data := p.flushes()
		for range 10 {
			l.equal(p.has(1), true)
			l.equal(p.has(2), false)
		}
		l.equal(p.status(), status)
		metaAfter, dataAfter := p.flushes()
		l.equal([]int{metaAfter, dataAfter}, []int{meta, data})
	}},
	{"a change flushes data once and metadata twice", func(l *lab) {
		p := l.pool()
		p.create(1)
		meta, data := p.flushes()
		p.create(2)
		metaAfter, dataAfter := p.flushes()
		l.equal([]int{metaAfter - meta, dataAfter - data}, []int{2, 1})
	}},
	{"status flushes nothing, commit does", func(l *lab) {
		p := l.pool()
		p.create(1)
		meta, _ := p.flushes()
		p.status()
		after, _ := p.flushes()
		l.equal(after, meta)
		_, err := p.Commit()
		l.must(err)
		after, _ = p.flushes()
		l.equal(after, meta+2)
	}},
	{"transaction id is compared and swapped", func(l *lab) {
		p := l.pool()
		l.must(p.SetTransactionID(0, 41))
		l.refused(p.SetTransactionID(0, 42), unix.EINVAL)
		id, err := p.TransactionID()
		l.must(err)
		l.equal(id, uint64(41))
	}},
	{"one metadata snapshot at a time", func(l *lab) {
		p := l.pool()
		l.must(p.ReserveMetadataSnap())
		l.equal(p.status().HeldRoot != 0, true)
		l.refused(p.ReserveMetadataSnap(), unix.EBUSY)
		l.must(p.ReleaseMetadataSnap())
		l.equal(p.status().HeldRoot, uint64(0))
		l.refused(p.ReleaseMetadataSnap(), unix.EINVAL)
	}},
	{"verbs say what failed and where", func(l *lab) {
		p := l.pool()
		p.create(1)
		err := p.CreateThin(1)
		l.equal(err.Error(), fmt.Sprintf("create_thin 1 %s: file exists", p.Device))
		l.equal(errors.Is(err, dm.ErrUnknownOutcome), false)
	}},
	{"a pool that is suspended takes messages", func(l *lab) {
		p := l.pool()
		l.must(p.WhileSuspended(0, func() error { return p.CreateThin(1) }))
		l.equal(p.has(1), true)
	}},
	{"no verb succeeds on a device without a table", func(l *lab) {
		d, err := dm.Create(l.kernel, l.name("bare"), "")
		l.must(err)
		l.removeAtEnd(d)
		// User-Mode Linux answers with a number that is no errno.
		if err := (dm.Pool{Device: d}).CreateThin(1); err == nil || errors.Is(err, dm.ErrUnknownOutcome) {
			l.Fatalf("a thin without a pool: error is %v", err)
		}
		_, err = dm.Pool{Device: d}.Has(1)
		l.equal(errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL), true)
	}},
	{"no message to a target that takes none", func(l *lab) {
		_, err := l.device("zero", "", dm.Whole(8, dm.Zero{})).Message(0, "create_thin 1")
		l.refused(err, unix.EINVAL)
	}},
}...)
