package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	d := newDisk(24)
	s := d.slots()
	if _, err := s.Read(); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
	var h history
	must(t, s.Switch(header, nil, 1))
	switches := 0
	for len(h) < 300 {
		body := strings.Repeat(fmt.Sprint(len(h)%10), random.IntN(400))
		if random.IntN(20) == 0 {
			body = strings.Repeat("long ", random.IntN(3000))
		}
		err := s.Append([]byte(body))
		if errors.Is(err, ErrFull) {
			if s.Room() >= FrameSize(len(body)) {
				t.Fatalf("full, with room for %d bytes", s.Room())
			}
			switches++
			h = h[len(h)-len(h)%7:] // a checkpoint forgets
			must(t, s.Switch(header, []byte(strings.Join(h, "\n")), s.Next()))
			continue
		}
		must(t, err)
		h = append(h, body)
		content, err := d.slots().Read()
		must(t, err)
		last := content.Frames[len(content.Frames)-1]
		if string(last.Body) != body || last.Number != s.Next()-1 || content.Last() != last.Number || content.Gap {
			t.Fatalf("wrote %d %q, read %d %q", s.Next()-1, body, last.Number, last.Body)
		}
		if h := content.Header; h != s.Header() || h.Size != s.Size() || h.Pool != "pool" || h.Generation != 7 {
			t.Fatalf("%+v, want %+v", h, s.Header())
		}
		if s.Next() > 300 && switches > 10 {
			return
		}
	}
	t.Errorf("only %d switches", switches)
}

// small is a journal that was switched three times, with frames of one and of two
// blocks in both slots, and stale ones behind them.
func small(t testing.TB) (d *disk, older, newer history) {
	t.Helper()
	d = newDisk(10)
	s := d.slots()
	var h history
	add := func(bodies ...string) {
		for _, body := range bodies {
			must(t, s.Append([]byte(body)))
			must(t, s.Sync())
			h = append(h, body)
		}
	}
	wide := strings.Repeat("2", BlockSize)
	for range 2 {
		must(t, s.Switch(header, nil, 1))
		add("stale", wide, wide, "stale")
	}
	h = nil
	must(t, s.Switch(header, nil, 1))
	add("one", wide, "three", "four")
	older = slices.Clone(h)
	must(t, s.Switch(header, h.checkpoint(5), 5))
	add("five", wide, "seven")
	return d, older, h
}

// A place is what lies somewhere in the newer slot of small.
type place struct {
	from, to int    // what is written there; padding follows
	what     string // header, checkpoint or frame
	frames   int    // before it
}

func places(t testing.TB, d *disk) (slot int, all []place) {
	t.Helper()
	s := d.slots()
	content, err := s.Read()
	must(t, err)
	_, length, _, _ := parseLine(slotLine, d.files[s.now].cached)
	all = []place{{0, lineSize + length, "header", 0}, {BlockSize, BlockSize + content.Header.Length, "checkpoint", 0}}
	at := BlockSize + roundUp(content.Header.Length)
	for i, f := range content.Frames {
		all = append(all, place{at, at + lineSize + len(f.Body), "frame", i})
		at += int(FrameSize(len(f.Body)))
	}
	return s.now, all
}

// check compares what a journal says with what it may say if what is written at a
// place is no more so: the header makes the older slot the newer one, which is for
// the caller to notice; a checkpoint is damage, and the header tells whose; a frame
// ends what is read, and is a gap if one follows.
func check(t testing.TB, d *disk, older, newer history, first int, broken *place, cut bool) {
	t.Helper()
	h, content, err := read(d)
	want, gap := newer, false
	switch {
	case broken == nil:
	case broken.what == "header":
		want = older
	case broken.what == "checkpoint":
		if !errors.Is(err, ErrDamaged) || content == nil || content.Header.Sequence != 4 || content.Checkpoint != nil {
			t.Fatalf("a broken checkpoint: %+v, %v", content, err)
		}
		return
	default:
		want = newer[:first-1+broken.frames]
		gap = !cut && len(want)+1 < len(newer)
	}
	if err != nil || !slices.Equal(h, want) || content.Gap != gap {
		t.Fatalf("broken %+v: read %.20q, gap %t, %v; want %.20q, gap %t", broken, h, content != nil && content.Gap, err, want, gap)
	}
}

// A file that has zeros from some place on reads as less of the same.
func TestCut(t *testing.T) {
	whole, older, newer := small(t)
	slot, all := places(t, whole)
	check(t, whole, older, newer, 5, nil, true)
	for at := 0; at <= len(whole.files[slot].cached); at += 512 {
		d := whole.clone()
		clear(d.files[slot].cached[at:])
		var broken *place
		for i, p := range all {
			if at < p.to {
				broken = &all[i]
				break
			}
		}
		check(t, d, older, newer, 5, broken, true)
	}
}

// Each bit counts, and no bit makes another journal.
func TestFlip(t *testing.T) {
	whole, older, newer := small(t)
	slot, all := places(t, whole)
	flips := 0
	flip := func(d *disk, slot, at, bit int, broken *place) {
		d.files[slot].cached[at] ^= 1 << bit
		check(t, d, older, newer, 5, broken, false)
		d.files[slot].cached[at] ^= 1 << bit
		flips++
	}
	size := len(whole.files[slot].cached)
	// Of padding, of what is free and of the older slot a bit here and there will
	// do, and of a body of one letter a bit of each byte.
	for from := range 8 {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			d := whole.clone()
			for at := from * size / 8; at < (from+1)*size/8; at++ {
				i := slices.IndexFunc(all, func(p place) bool { return p.from <= at && at < p.to })
				switch {
				case i >= 0 && at-all[i].from < 512:
					for bit := range 8 {
						flip(d, slot, at, bit, &all[i])
					}
				case i >= 0 && at%8 == 0:
					flip(d, slot, at, at/8%8, &all[i])
				case i < 0 && at%32 == 0:
					flip(d, slot, at, at/32%8, nil)
				}
				if at%32 == 0 {
					flip(d, 1-slot, at, at/32%8, nil)
				}
			}
		})
	}
	t.Logf("%d bits", flips)
}

// With both headers gone nothing is empty, and nothing is found.
func TestNoHeader(t *testing.T) {
	d, _, _ := small(t)
	for _, f := range d.files {
		f.cached[lineSize] ^= 1
	}
	if content, err := d.slots().Read(); !errors.Is(err, ErrDamaged) || content != nil {
		t.Errorf("%+v, %v", content, err)
	}
}

// A frame of several blocks of which some were not written is not there, whatever
// was in their place.
func TestTornFrame(t *testing.T) {
	for _, under := range []string{"zeros", "an older frame", "the same frame, refused before"} {
		d := newDisk(12)
		s := d.slots()
		must(t, s.Switch(header, nil, 1))
		must(t, s.Append([]byte("one")))
		body := []byte(strings.Repeat("3", 3*BlockSize))
		switch under {
		case "an older frame":
			must(t, s.Append([]byte(strings.Repeat("x", 3*BlockSize))))
			must(t, s.Switch(header, nil, 3))
			must(t, s.Switch(header, nil, 3))
			must(t, s.Append([]byte("three")))
		case "the same frame, refused before":
			must(t, s.Append([]byte(strings.Repeat("x", 3*BlockSize))))
			s.next, s.end = s.next-1, s.end-4*BlockSize
		}
		must(t, s.Sync())
		at := s.end
		before := d.clone()
		must(t, s.Append(body))
		all := 1<<4 - 1
		for subset := range all + 1 {
			c := before.clone()
			for i := range 4 {
				if subset&(1<<i) != 0 {
					copy(c.files[s.now].cached[at+int64(i)*BlockSize:][:BlockSize], d.files[s.now].cached[at+int64(i)*BlockSize:])
				}
			}
			content, err := c.slots().Read()
			want := 1
			if subset == all || subset == 0 && under == "the same frame, refused before" {
				want = 2
			}
			if err != nil || len(content.Frames) != want || content.Gap {
				t.Errorf("%s, blocks %04b: %d frames, gap %t, %v", under, subset, len(content.Frames), content.Gap, err)
			}
		}
	}
}

// What an earlier use of a slot has left is no frame of this one, though it has the
// very number that comes next and lies where that goes. It comes to that if a root
// is lost and the label has frames behind a gap.
func TestStaleFrames(t *testing.T) {
	for blocks := range 4 {
		d := newDisk(12)
		s := d.slots()
		must(t, s.Switch(header, nil, 1))
		for i := range 8 {
			must(t, s.Append(fmt.Appendf(nil, "stale %d", i+1)))
		}
		must(t, s.Switch(header, nil, 2))
		must(t, s.Switch(header, make([]byte, blocks*BlockSize), uint64(blocks+1)))
		content, err := d.slots().Read()
		if err != nil || len(content.Frames) != 0 || content.Gap {
			t.Errorf("checkpoint of %d blocks: %d frames, gap %t, %v", blocks, len(content.Frames), content.Gap, err)
		}
		must(t, s.Append([]byte("fresh")))
		content, err = d.slots().Read()
		if err != nil || len(content.Frames) != 1 || string(content.Frames[0].Body) != "fresh" || content.Gap {
			t.Errorf("checkpoint of %d blocks: %+v, %v", blocks, content, err)
		}
	}
}

// Nothing is appended to what was only found, nor behind the end.
func TestFull(t *testing.T) {
	d, older, newer := small(t)
	s := d.slots()
	_, err := s.Read()
	must(t, err)
	if err := s.Append([]byte("x")); !errors.Is(err, ErrFull) || s.Room() != 0 {
		t.Errorf("append to a slot that was found: %v, room for %d", err, s.Room())
	}
	if err := s.Switch(header, make([]byte, 9*BlockSize+1), s.Next()); !errors.Is(err, ErrFull) {
		t.Errorf("switch to too much: %v", err)
	}
	check(t, d, older, newer, 5, nil, false)
	must(t, s.Switch(header, make([]byte, 9*BlockSize), s.Next()))
	if err := s.Append(nil); !errors.Is(err, ErrFull) {
		t.Errorf("append to a full slot: %v", err)
	}
	must(t, s.Switch(header, make([]byte, 8*BlockSize), s.Next()))
	if err := s.Append(make([]byte, BlockSize-lineSize+1)); !errors.Is(err, ErrFull) {
		t.Errorf("append of two blocks to one: %v", err)
	}
	must(t, s.Append(make([]byte, BlockSize-lineSize)))
}

// A switch that fails leaves the old slot or the new one. Unless it is unsure it is
// the old one, which goes on.
func TestSwitchFails(t *testing.T) {
	for _, found := range []bool{false, true} {
		for _, happened := range []bool{false, true} {
			at := 0
			for switchFails(t, at, found, happened) {
				at++
			}
			want := 6 // three blocks and a sync, the header and a sync
			if found {
				want++
			}
			if at != want {
				t.Errorf("a switch is %d I/Os, want %d", at, want)
			}
		}
	}
}

// switchFails lets an I/O of a switch fail, before or after it happened. The slot
// before was found, or written by the same process.
func switchFails(t *testing.T, at int, found, happened bool) (hit bool) {
	d, _, h := small(t)
	s := d.slots()
	_, err := s.Read()
	must(t, err)
	if !found {
		must(t, s.Switch(header, h.checkpoint(8), 8))
	}
	fail := func(number int) error {
		if number == at {
			return unix.EIO
		}
		return nil
	}
	d.ios = 0
	if happened {
		d.after = fail
	} else {
		d.before = func(number int, _ string) error { return fail(number) }
	}
	failed := s.Switch(header, h.checkpoint(8), 8)
	d.before, d.after = nil, nil
	if failed == nil {
		return false
	}
	got, content, err := read(d)
	if !errors.Is(failed, unix.EIO) || err != nil || !slices.Equal(got, h) || content.Gap {
		t.Errorf("I/O %d, happened %t: %v; read %.20q, %v", at, happened, failed, got, err)
	}
	if !errors.Is(failed, ErrUnsure) && !found {
		must(t, s.Append([]byte("on")))
		h = append(h, "on")
		if got, _, err := read(d); err != nil || !slices.Equal(got, h) {
			t.Errorf("I/O %d, happened %t, and on: read %.20q, %v", at, happened, got, err)
		}
	}
	return true
}

// Two journals differ in nothing but how a caller continues another one.
func TestContinue(t *testing.T) {
	d := newDisk(8)
	s := d.slots()
	s.Continue(41, 99)
	must(t, s.Switch(header, nil, s.Next()))
	s.Continue(3, 4)
	must(t, s.Append([]byte("x")))
	content, err := d.slots().Read()
	if err != nil || content.Header.Sequence != 42 || content.Header.First != 99 || content.Last() != 99 {
		t.Errorf("%+v, %v", content, err)
	}
}

// A copy of another size is no journal that was written like that.
func TestOtherSize(t *testing.T) {
	d, _, _ := small(t)
	for i, f := range d.files {
		d.files[i].cached = append(f.cached, make([]byte, BlockSize)...)
	}
	if content, err := d.slots().Read(); !errors.Is(err, ErrDamaged) || content == nil {
		t.Errorf("%+v, %v", content, err)
	}
}

func TestReadErrors(t *testing.T) {
	d, _, _ := small(t)
	for i := range d.files {
		files := [2]File{d.files[0], d.files[1]}
		files[i] = broken{files[i]}
		if _, err := New(files, int64(len(d.files[0].cached))).Read(); !errors.Is(err, unix.EIO) || IsDamage(err) {
			t.Errorf("slot %d cannot be read: %v", i, err)
		}
	}
}

type broken struct{ File }

func (broken) ReadAt([]byte, int64) (int, error) { return 0, unix.EIO }

// A frame that is not where it goes is none that was written.
func TestMovedFrame(t *testing.T) {
	d, older, newer := small(t)
	slot, all := places(t, d)
	last := all[len(all)-1]
	b := d.files[slot].cached
	copy(b[last.from+BlockSize:], b[last.from:][:BlockSize])
	clear(b[last.from:][:BlockSize])
	h, content, err := read(d)
	if err != nil || !content.Gap || !slices.Equal(h, newer[:len(newer)-1]) {
		t.Errorf("read %.20q, %v; older %.20q", h, err, older)
	}
}
