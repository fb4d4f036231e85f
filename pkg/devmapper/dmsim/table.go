package dmsim

import (
	"fmt"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// A table is a device's behaviour, with what it uses held open.
type table struct {
	segments []segment
	held     []storage // disks and dm devices below, claimed
	below    []dm.DevNo
}

type segment struct {
	line   dm.Line
	target target
}

// A target does the I/O of a segment. Offsets count from the segment's begin and
// lengths are whole sectors. Targets may also be a starter, a suspender, a closer
// or take messages.
type target interface {
	read(at int64, b []byte) error
	write(at int64, b []byte) error
	discard(at, length int64) error
	flush() error
	status() string
}

type starter interface{ start() error }
type sizer interface{ fits(dm.Sectors) bool }
type suspender interface{ suspended() }
type closer interface{ close() }
type committer interface{ commit() }

// newTable builds a table of what the lines say; d is the device that it is for.
// A table that is refused leaves nothing open.
func (k *Kernel) newTable(d *device, lines []dm.Line) (*table, error) {
	t := &table{}
	if err := k.build(d, t, lines); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (k *Kernel) build(d *device, t *table, lines []dm.Line) error {
	if len(lines) == 0 {
		return unix.EINVAL
	}
	var end dm.Sectors
	for _, line := range lines {
		if line.Start != end || line.Length == 0 {
			return unix.EINVAL
		}
		end += line.Length
		target, err := k.newTarget(d, t, line)
		if err != nil {
			return err
		}
		t.segments = append(t.segments, segment{line, target})
	}
	return nil
}

func (k *Kernel) newTarget(d *device, t *table, line dm.Line) (target, error) {
	if line.Type == (dmtest.Flakey{}).TargetType() {
		f, err := dmtest.ParseFlakey(line.Params)
		if err != nil {
			return nil, unix.EINVAL
		}
		return k.newFlakey(t, f)
	}
	parsed, err := dm.ParseTable([]dm.Line{line})
	if err != nil {
		return nil, unix.EINVAL
	}
	switch p := parsed[0].Target.(type) {
	case dm.Linear:
		return k.newLinear(t, p)
	case dm.ErrorTarget:
		return errorTarget{}, nil
	case dm.Zero:
		return zero{}, nil
	case dm.Thin:
		return k.newThin(d, t, p)
	case dm.ThinPool:
		return k.newPool(d, t, p, line.Length)
	}
	return nil, unix.EINVAL
}

// hold opens the device of that number for t, and claims it.
func (k *Kernel) hold(t *table, dev dm.DevNo) (storage, error) {
	s := k.storage(dev)
	if s == nil {
		return nil, unix.ENXIO
	}
	if err := s.claimed().byTable(); err != nil {
		return nil, err
	}
	s.open()
	t.held = append(t.held, s)
	t.below = append(t.below, dev)
	return s, nil
}

func (t *table) close() {
	for _, s := range t.segments {
		if c, ok := s.target.(closer); ok {
			c.close()
		}
	}
	for _, s := range t.held {
		s.claimed().tables--
		s.close()
	}
}

func (t *table) length() (length dm.Sectors) {
	for _, s := range t.segments {
		length += s.line.Length
	}
	return length
}

// fits reports whether no segment reaches beyond the device below it
// (drivers/md/dm-table.c: device_area_is_invalid).
func (t *table) fits() bool {
	for _, s := range t.segments {
		if f, ok := s.target.(sizer); ok && !f.fits(s.line.Length) {
			return false
		}
	}
	return true
}

// start resumes the targets; all of them are asked first.
func (t *table) start() error {
	for _, s := range t.segments {
		if s, ok := s.target.(starter); ok {
			if err := s.start(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *table) suspended() {
	for _, s := range t.segments {
		if s, ok := s.target.(suspender); ok {
			s.suspended()
		}
	}
}

// at returns the target that serves a sector, or nil.
func (t *table) at(sector dm.Sectors) target {
	if t == nil {
		return nil
	}
	for _, s := range t.segments {
		if sector >= s.line.Start && sector < s.line.Start+s.line.Length {
			return s.target
		}
	}
	return nil
}

func (t *table) deps() []dm.DevNo {
	if t == nil {
		return nil
	}
	return t.below
}

// status answers TableStatus, which commits a pool unless told not to.
func (t *table) status(how dm.Flags) (lines []dm.Line) {
	if t == nil {
		return nil
	}
	for _, s := range t.segments {
		line := s.line
		if how&dm.StatusTable == 0 {
			if c, ok := s.target.(committer); ok && how&dm.NoFlush == 0 {
				c.commit()
			}
			line.Params = s.target.status()
		}
		lines = append(lines, line)
	}
	return lines
}

// each splits an I/O among the segments that it touches.
func (t *table) each(at, length int64, do func(s target, at, from, to int64) error) error {
	if t == nil || at < 0 || at+length > t.length().Bytes() {
		return unix.EIO
	}
	for _, s := range t.segments {
		begin, end := s.line.Start.Bytes(), (s.line.Start + s.line.Length).Bytes()
		from, to := max(begin, at), min(end, at+length)
		if from < to {
			if err := do(s.target, from-begin, from-at, to-at); err != nil {
				return err
			}
		}
	}
	return nil
}

type errorTarget struct{}

func (errorTarget) read(int64, []byte) error   { return unix.EIO }
func (errorTarget) write(int64, []byte) error  { return unix.EIO }
func (errorTarget) discard(int64, int64) error { return unix.EIO }
func (errorTarget) flush() error               { return unix.EIO }
func (errorTarget) status() string             { return "" }

type zero struct{}

func (zero) read(_ int64, b []byte) error { clear(b); return nil }
func (zero) write(int64, []byte) error    { return nil }
func (zero) discard(int64, int64) error   { return unix.EOPNOTSUPP }
func (zero) flush() error                 { return nil }
func (zero) status() string               { return "" }

// linear is another storage from a certain byte on.
type linear struct {
	below storage
	start int64
}

func (k *Kernel) newLinear(t *table, p dm.Linear) (target, error) {
	below, err := k.hold(t, p.Dev)
	if err != nil {
		return nil, err
	}
	return linear{below, p.Start.Bytes()}, nil
}

func (l linear) fits(length dm.Sectors) bool {
	return l.start+length.Bytes() <= l.below.size().Bytes()
}

func (l linear) read(at int64, b []byte) error        { return l.below.read(l.start+at, b) }
func (l linear) write(at int64, b []byte) error       { return l.below.write(l.start+at, b) }
func (l linear) discard(at int64, length int64) error { return l.below.discard(l.start+at, length) }
func (l linear) flush() error                         { return l.below.flush() }
func (l linear) status() string                       { return "" }

// flakey is a linear that is well for ever or ill for ever: time stands still.
type flakey struct {
	linear
	ill, drops, failsReads bool
}

func (k *Kernel) newFlakey(t *table, p dmtest.Flakey) (target, error) {
	if p.Up == 0 == (p.Down == 0) {
		return nil, fmt.Errorf("flakey with up %v and down %v would change by itself: %w", p.Up, p.Down, unix.EINVAL)
	}
	below, err := k.hold(t, p.Dev)
	if err != nil {
		return nil, err
	}
	f := flakey{linear: linear{below, p.Start.Bytes()}, ill: p.Down > 0, failsReads: len(p.Features) == 0}
	for _, feature := range p.Features {
		f.drops = f.drops || feature == dmtest.DropWrites
	}
	return f, nil
}

func (f flakey) read(at int64, b []byte) error {
	if f.ill && f.failsReads {
		return unix.EIO
	}
	return f.linear.read(at, b)
}

func (f flakey) write(at int64, b []byte) error {
	switch {
	case f.ill && f.drops:
		return nil
	case f.ill:
		return unix.EIO
	}
	return f.linear.write(at, b)
}

// flush counts as a write (drivers/md/dm-flakey.c: flakey_map).
func (f flakey) flush() error {
	switch {
	case f.ill && f.drops:
		return nil
	case f.ill:
		return unix.EIO
	}
	return f.linear.flush()
}
