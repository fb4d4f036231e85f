package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestOtherFormat(t *testing.T) {
	d, _, _ := small(t)
	head, ok, err := ParseHeader(d.files[0].cached[:BlockSize])
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	head.Format++
	block, err := sealHeader(head)
	must(t, err)
	if h, ok, err := ParseHeader(block); !errors.Is(err, ErrUnsupported) || ok || h != (Header{}) {
		t.Errorf("%+v, %t, %v", h, ok, err)
	}
	for i := range d.files { // the older one too: its successor may have made it so
		c := d.clone()
		copy(c.files[i].cached, block)
		if content, err := c.slots().Read(); !errors.Is(err, ErrUnsupported) || content != nil {
			t.Errorf("slot %d: %+v, %v", i, content, err)
		}
	}
}

func TestParseHeader(t *testing.T) {
	want := Header{Format: Format, Pool: "p", Store: "<s>", Machine: "ü", Size: 1 << 30, Generation: 1, Sequence: math.MaxUint64, First: 3, Length: 4, Sum: math.MaxUint32}
	block, err := sealHeader(want)
	must(t, err)
	if h, ok, err := ParseHeader(block); h != want || !ok || err != nil {
		t.Errorf("%+v, %t, %v", h, ok, err)
	}
	for name, block := range map[string][]byte{
		"zeros":          make([]byte, BlockSize),
		"nothing":        nil,
		"a frame":        seal(frameLine, want.Sequence, 0, block[lineSize:]),
		"other sequence": seal(slotLine, 7, 0, bytes.Trim(block[lineSize:], "\n")),
		"no JSON":        seal(slotLine, 7, 0, []byte("{")),
		"half":           block[:lineSize+10],
	} {
		if h, ok, err := ParseHeader(block); ok || err != nil {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if _, err := sealHeader(Header{Machine: strings.Repeat("m", BlockSize)}); err == nil {
		t.Error("a header of two blocks")
	}
}

// A header may say anything of its checkpoint.
func TestHeaderLies(t *testing.T) {
	for _, head := range []Header{
		{Length: -1, First: 1}, {Length: math.MaxInt, First: 1}, {Length: math.MinInt, First: 1},
		{Length: 9*BlockSize + 1, First: 1}, {First: 0}, {First: 1, Size: -1}, {First: 1, Length: 5, Sum: 6},
	} {
		d := newDisk(10)
		head.Format = Format
		if head.Size == 0 {
			head.Size = int64(len(d.files[0].cached))
		}
		block, err := sealHeader(head)
		must(t, err)
		copy(d.files[0].cached, block)
		if content, err := d.slots().Read(); !errors.Is(err, ErrDamaged) || content == nil || content.Header != head {
			t.Errorf("%+v: %+v, %v", head, content, err)
		}
	}
}

// A caller's text may hold the begin of a frame but for its newline, at the begin
// of a block, in a frame that is itself no more readable.
func TestImitation(t *testing.T) {
	d := newDisk(10)
	s := d.slots()
	must(t, s.Switch(header, nil, 1))
	// Sealed for the very place, with the salt and the next number.
	real := seal(frameLine, 2, s.salt, []byte("mine"))
	line := string(real[:lineSize+len("mine")])
	text := strings.Repeat(" ", BlockSize-lineSize-1) + line
	body, err := json.Marshal(text)
	must(t, err)
	if at := bytes.Index(body, []byte("dmthin frame")); at+lineSize != BlockSize {
		t.Fatalf("the imitation is at %d", at)
	}
	must(t, s.Append(body))
	must(t, s.Append([]byte("another")))
	d.files[s.now].cached[BlockSize] ^= 1
	content, err := d.slots().Read()
	if err != nil || len(content.Frames) != 0 || !content.Gap {
		t.Errorf("%+v, %v", content, err)
	}
	// And without the frame behind, there is none at all.
	clear(d.files[s.now].cached[3*BlockSize:])
	content, err = d.slots().Read()
	if err != nil || len(content.Frames) != 0 || content.Gap {
		t.Errorf("%+v, %v", content, err)
	}
	// It is the newline that makes the difference.
	copy(d.files[s.now].cached[2*BlockSize:], real)
	if content, err = d.slots().Read(); err != nil || !content.Gap {
		t.Errorf("%+v, %v", content, err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(uint64(1), uint32(0), []byte("body"), 3, byte(1))
	f.Add(uint64(math.MaxUint64), uint32(7), []byte{}, 70, byte(255))
	f.Fuzz(func(t *testing.T, number uint64, salt uint32, body []byte, at int, flip byte) {
		b := seal(frameLine, number, salt, body)
		if int64(len(b)) != FrameSize(len(body)) || len(b)%BlockSize != 0 {
			t.Fatalf("%d bytes for %d", len(b), len(body))
		}
		n, got, ok := unseal(frameLine, salt, b)
		if !ok || n != number || !bytes.Equal(got, body) {
			t.Fatalf("%d %q, %t", n, got, ok)
		}
		if _, _, ok := unseal(frameLine, salt+1, b); ok {
			t.Fatal("unsealed with another salt")
		}
		if _, _, ok := unseal(slotLine, salt, b); ok {
			t.Fatal("unsealed as a header")
		}
		if flip != 0 && at >= 0 && at < lineSize+len(body) {
			b[at] ^= flip
			if n, got, ok := unseal(frameLine, salt, b); ok {
				t.Fatalf("unsealed %d %q with byte %d changed", n, got, at)
			}
		}
	})
}

// Whatever is in the slots, reading takes no more memory than they have bytes.
func FuzzRead(f *testing.F) {
	d, _, _ := small(f)
	f.Add(d.files[0].cached, d.files[1].cached, true)
	f.Add([]byte("dmthin slot  0000000000000001 00000001 00000000\n{"), []byte{}, false)
	f.Fuzz(func(t *testing.T, a, b []byte, mend bool) {
		const blocks = 12
		d := newDisk(blocks)
		copy(d.files[0].cached, a)
		copy(d.files[1].cached, b)
		if mend { // or no fuzzer gets beyond the checksums
			for _, f := range d.files {
				mendSlot(f.cached)
			}
		}
		content, err := d.slots().Read()
		if (content == nil) && err == nil {
			t.Fatal("nothing, and no error")
		}
		if content == nil {
			return
		}
		total := len(content.Checkpoint)
		for i, f := range content.Frames {
			if total += len(f.Body); f.Number != content.Header.First+uint64(i) {
				t.Fatalf("frame %d has number %d of %d", i, f.Number, content.Header.First)
			}
		}
		if total > blocks*BlockSize {
			t.Fatalf("%d bytes out of %d", total, blocks*BlockSize)
		}
	})
}

// mendSlot makes right the checksums of a slot.
func mendSlot(b []byte) {
	if number, length, _, ok := parseLine(slotLine, b); ok && length <= BlockSize-lineSize {
		var h Header
		if json.Unmarshal(b[lineSize:][:length], &h) == nil {
			h.Format, h.Sequence = Format, number
			if h.Length >= 0 && h.Length <= len(b)-BlockSize {
				h.Sum = checksum(b[BlockSize:][:h.Length])
			}
			if block, err := sealHeader(h); err == nil {
				copy(b, block)
			}
		}
	}
	salt := saltOf(b)
	for at := BlockSize; at < len(b); at += BlockSize {
		number, length, _, ok := parseLine(frameLine, b[at:])
		if ok && length <= len(b)-at-lineSize {
			body := b[at+lineSize:][:length]
			copy(b[at:], fmt.Sprintf(frameLine, number, length, sum(frameLine, number, salt, body)))
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, full := range []bool{false, true} {
		b.Run(fmt.Sprintf("frames=%t", full), func(b *testing.B) {
			d := newDisk(32 << 20 / BlockSize)
			s := d.slots()
			must(b, s.Switch(header, make([]byte, 4<<20), 1))
			for full && s.Room() > 0 {
				copy(d.files[s.now].cached[s.end:], seal(frameLine, s.next, s.salt, make([]byte, 200)))
				s.next, s.end = s.next+1, s.end+BlockSize
			}
			b.ReportAllocs()
			b.SetBytes(32 << 20)
			for b.Loop() {
				_, err := d.slots().Read()
				must(b, err)
			}
		})
	}
}
