package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
)

// A disk has the two files of a journal and a cache: what was written and not
// synced may be lost, block by block and in any order.
type disk struct {
	files [2]*file
	ios   int // writes of a block, and syncs, so far
	// before is asked before each of them: with an error it does not happen.
	before func(number int, name string) error
	after  func(number int) error
}

type file struct {
	disk     *disk
	name     string
	synced   []byte
	cached   []byte
	unsynced []int // blocks, in the order of their writes
}

func newDisk(blocks int) *disk {
	d := &disk{}
	for i := range d.files {
		size := blocks * BlockSize
		d.files[i] = &file{disk: d, name: fmt.Sprint(i), synced: make([]byte, size), cached: make([]byte, size)}
	}
	return d
}

// slots returns the slots of a new process.
func (d *disk) slots() *Slots {
	return New([2]File{d.files[0], d.files[1]}, int64(len(d.files[0].cached)))
}

// clone returns an equal disk on which nothing goes wrong.
func (d *disk) clone() *disk {
	c := &disk{}
	for i, f := range d.files {
		c.files[i] = &file{
			disk: c, name: f.name,
			synced: slices.Clone(f.synced), cached: slices.Clone(f.cached), unsynced: slices.Clone(f.unsynced),
		}
	}
	return c
}

func (d *disk) io(name string, do func()) error {
	number := d.ios
	d.ios++
	if d.before != nil {
		if err := d.before(number, name); err != nil {
			return err
		}
	}
	do()
	if d.after != nil {
		return d.after(number)
	}
	return nil
}

func (f *file) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at%BlockSize != 0 || len(b)%BlockSize != 0 {
		return 0, errors.New("not aligned")
	}
	if at+int64(len(b)) > int64(len(f.cached)) {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(b, f.cached[at:]), nil
}

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at%BlockSize != 0 || len(b)%BlockSize != 0 || at+int64(len(b)) > int64(len(f.cached)) {
		return 0, errors.New("not within, or not aligned")
	}
	for n := 0; n < len(b); n += BlockSize {
		block := (int(at) + n) / BlockSize
		err := f.disk.io(fmt.Sprintf("write %s.%d", f.name, block), func() {
			copy(f.cached[block*BlockSize:], b[n:][:BlockSize])
			if !slices.Contains(f.unsynced, block) {
				f.unsynced = append(f.unsynced, block)
			}
		})
		if err != nil {
			return n, err
		}
	}
	return len(b), nil
}

func (f *file) Sync() error {
	return f.disk.io("sync "+f.name, func() {
		copy(f.synced, f.cached)
		f.unsynced = nil
	})
}

// powerCuts calls each with what a power cut may leave: with up to six blocks
// unsynced with every subset of them, else with 64.
func (d *disk) powerCuts(each func(*disk)) {
	type at struct{ file, block int }
	var unsynced []at
	for i, f := range d.files {
		for _, block := range f.unsynced {
			unsynced = append(unsynced, at{i, block})
		}
	}
	random := rand.New(rand.NewPCG(1, uint64(d.ios)))
	for subset := range uint64(1) << min(len(unsynced), 6) {
		if len(unsynced) > 6 {
			subset = random.Uint64()
		}
		c := d.clone()
		for i, u := range unsynced {
			if subset&(1<<i) == 0 {
				from := u.block * BlockSize
				copy(c.files[u.file].cached[from:][:BlockSize], c.files[u.file].synced[from:])
			}
		}
		for _, f := range c.files {
			copy(f.synced, f.cached)
			f.unsynced = nil
		}
		each(c)
	}
}

// A crash ends a process at an I/O.
type crash struct{}

// crashes runs do until its I/O number at, and reports whether it came as far.
func (d *disk) crashes(at int, do func()) (crashed bool) {
	d.before = func(number int, _ string) error {
		if number == at {
			panic(crash{})
		}
		return nil
	}
	defer func() {
		d.before = nil
		if r := recover(); r != nil {
			if _, crashed = r.(crash); !crashed {
				panic(r)
			}
		}
	}()
	d.ios = 0
	do()
	return false
}

// header is what the tests write into headers.
var header = Header{Pool: "pool", Store: "store", Machine: "machine", Generation: 7}

// A history is all that was put into a journal, in order. Its checkpoint has a
// line for each, so that reading a journal returns the history.
type history []string

func (h history) checkpoint(before uint64) []byte {
	var b bytes.Buffer
	for _, body := range h[:before-1] {
		fmt.Fprintf(&b, "%s\n", body)
	}
	return b.Bytes()
}

// read returns the history that a new process finds.
func read(d *disk) (history, *Content, error) {
	content, err := d.slots().Read()
	if err != nil {
		return nil, content, err
	}
	var h history
	for line := range bytes.Lines(content.Checkpoint) {
		h = append(h, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	for _, f := range content.Frames {
		h = append(h, string(f.Body))
	}
	if content.Last() != uint64(len(h)) {
		return h, content, fmt.Errorf("the last frame is %d of %d", content.Last(), len(h))
	}
	return h, content, nil
}

// must ends a test for an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
