package deviceset

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A scribe writes records that fit, at random.
type scribe struct {
	*rand.Rand
	c      *catalog
	op     uint64
	frames [][]byte
}

// text returns what a device's label may be, at its worst for a checkpoint.
func (s *scribe) text(most int) string {
	letters := []rune("az09<>&\"\\ü€😀\u2028")
	var b strings.Builder
	for b.Len() < s.IntN(most+1) {
		b.WriteRune(letters[s.IntN(len(letters))])
	}
	return strings.ToValidUTF8(b.String()[:min(b.Len(), most)], "")
}

func (s *scribe) labels() map[string]string {
	labels := map[string]string{}
	for range s.IntN(4) {
		labels[fmt.Sprintf("key/%d", s.IntN(100))] = s.text(256)
	}
	return labels
}

func (s *scribe) device() *device {
	name := fmt.Sprintf("pvc-%d", s.IntN(1000))
	if s.IntN(10) == 0 {
		name = strings.Repeat("n", 1+s.IntN(128))
	}
	id, err := s.c.nextID(s.c.Cursor)
	if err != nil {
		panic(err)
	}
	d := &device{
		Name: name, ID: id, Size: s.Int64N(1 << 50), FS: "ext4", Created: s.Int64(), ReadOnly: s.IntN(5) == 0,
		Layer: s.IntN(5) == 0, Labels: s.labels(), Born: birth{Generation: s.Uint64()},
	}
	if s.IntN(2) == 0 {
		d.Parent = strings.Repeat("p", 1+s.IntN(128))
	}
	return d
}

// one returns one of what a map holds, or the zero value.
func one[K comparable, V any](s *scribe, m map[K]V, less func(a, b K) int) (v V) {
	if keys := slices.SortedFunc(maps.Keys(m), less); len(keys) > 0 {
		v = m[keys[s.IntN(len(keys))]]
	}
	return v
}

// record returns a record that fits now.
func (s *scribe) record() record {
	for {
		existing := one(s, s.c.devices, strings.Compare)
		open := one(s, s.c.open, func(a, b uint64) int { return int(a) - int(b) })
		free := func(name string) bool { return s.c.devices[name] == nil && s.c.making[name] == nil }
		time := s.Uint32()
		switch n := s.IntN(20); {
		case n < 6:
			if d := s.device(); free(d.Name) {
				s.op++
				r := record{Do: doCreate, Op: s.op, Device: d}
				if existing != nil {
					r.Origin = &existing.ID
				}
				return r
			}
		case n < 9 && open != nil:
			return record{Do: doEnd, Op: open.Op}
		case n == 9 && open != nil && !open.Delete:
			return record{Do: doAbort, Op: open.Op}
		case n == 10:
			s.op++
			if d := s.device(); free(d.Name) {
				if q := one(s, s.c.quarantine, func(a, b dm.DeviceID) int { return int(a) - int(b) }); q.ID != 0 {
					d.ID = q.ID
				}
				d.Adopted = true
				return record{Do: doAdopt, Op: s.op, Device: d}
			}
		case n == 11:
			return record{Do: doRaise, Number: s.c.Generation + 1}
		case n == 12:
			return slices.Concat([]record{{Do: doRaised}, {Do: doMade}, {Do: doGive, Size: s.Int64N(1<<40) * 512}})[s.IntN(3)]
		case existing == nil:
		case n < 15:
			s.op++
			return record{Do: doDelete, Op: s.op, Name: existing.Name}
		case n == 15:
			return record{Do: doGrow, Name: existing.Name, Size: existing.Size + 1}
		case n == 16:
			return record{Do: doFormatting, Name: existing.Name}
		case n == 17:
			return record{Do: doFormatted, Name: existing.Name, FS: "xfs"}
		case n == 18:
			return record{Do: doLabel, Name: existing.Name, Labels: s.labels()}
		case n == 19:
			return record{Do: doBorn, Name: existing.Name, Time: &time}
		}
	}
}

// write writes a frame of a few records.
func (s *scribe) write(t testing.TB) {
	t.Helper()
	var body []byte
	for range 1 + s.IntN(3) {
		r := s.record()
		line, err := encodeRecords([]record{r})
		if err != nil {
			t.Fatal(err)
		}
		body = append(body, line...)
		if err := s.c.apply(r, uint64(len(s.frames)+1)); err != nil {
			t.Fatal(err)
		}
	}
	s.frames = append(s.frames, body)
}

func newScribe(seed uint64) *scribe {
	c := newCatalog(poolRecord{UUID: strings.Repeat("f", 32), Kind: poolDevices, Data: "/dev/<data>", Metadata: "/dev/meta"})
	for id := range dm.DeviceID(3) {
		created := uint32(math.MaxUint32)
		c.keepAway(quarantined{ID: 1000 + id, Name: strings.Repeat("q", 128), Born: birth{math.MaxUint64, &created}, Mapped: math.MaxInt64, Why: "its birth is not the one on record"})
	}
	return &scribe{Rand: rand.New(rand.NewPCG(seed, 0)), c: c}
}

// same compares all of two catalogs but freed, which a checkpoint forgets.
func same(t testing.TB, what string, a, b *catalog) {
	t.Helper()
	textA, errA := a.checkpoint()
	textB, errB := b.checkpoint()
	if errA != nil || errB != nil || !bytes.Equal(textA, textB) {
		t.Fatalf("%s: %v, %v\n%s\nis not\n%s", what, errA, errB, textA, textB)
	}
	if a.size != b.size || a.promised != b.promised {
		t.Fatalf("%s: size %d, promised %d; want %d, %d", what, a.size, a.promised, b.size, b.promised)
	}
	if !slices.Equal(a.names, b.names) || !maps.Equal(a.ids, b.ids) || len(a.making) != len(b.making) || a.deletions() != b.deletions() {
		t.Fatalf("%s: names %v, ids %v, making %v; want %v, %v, %v", what, a.names, a.ids, a.making, b.names, b.ids, b.making)
	}
}

// A checkpoint at any frame, and the frames behind it, make the same catalog as all
// frames from the beginning.
func TestCheckpoint(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for range 30 {
		seed++
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newScribe(seed)
			start, err := s.c.checkpoint()
			if err != nil {
				t.Fatal(err)
			}
			var texts [][]byte
			for range 60 {
				s.write(t)
				text, err := s.c.checkpoint()
				if err != nil {
					t.Fatal(err)
				}
				if s.c.size < len(text) || s.c.size > 4*len(text) {
					t.Fatalf("a checkpoint of %d bytes was taken for one of %d", len(text), s.c.size)
				}
				texts = append(texts, text)
			}
			for at, text := range slices.Concat([][]byte{start}, texts) {
				if at%7 != 0 && at != len(texts) {
					continue
				}
				c, err := parseCheckpoint(text)
				if err != nil {
					t.Fatal(err)
				}
				for i, body := range s.frames[at:] {
					if err := c.replay(body, uint64(at+i+1)); err != nil {
						t.Fatalf("frame %d of %d: %v", i, at, err)
					}
				}
				same(t, fmt.Sprintf("from frame %d", at), c, s.c)
			}
		})
	}
}

// A checkpoint takes no more than was reckoned with, however long all is.
func TestWeight(t *testing.T) {
	created := uint32(math.MaxUint32)
	labels := map[string]string{}
	for i := range mostLabels {
		labels[fmt.Sprintf("%063d", i)] = strings.Repeat("<", 256)
	}
	worst := device{
		Name: strings.Repeat("n", 128), ID: dm.MaxDeviceID, Op: math.MaxUint64, Size: math.MaxInt64,
		Parent: strings.Repeat("p", 128), FS: "btrfs", Formatting: true, Created: math.MinInt64,
		ReadOnly: true, Layer: true, Adopted: true, Labels: labels, Born: birth{math.MaxUint64, &created},
	}
	plain := worst
	plain.Labels = nil
	origin := dm.MaxDeviceID
	long := "/" + strings.Repeat("<", 4095)
	for name, fill := range map[string]func(c *catalog){
		"nothing":        func(c *catalog) {},
		"a device":       func(c *catalog) { c.add(&worst) },
		"without labels": func(c *catalog) { c.add(&plain) },
		"a bare device":  func(c *catalog) { c.add(&device{Name: "a", FS: "none", ID: 1}) },
		"an operation": func(c *catalog) {
			c.begin(&operation{Op: math.MaxUint64, Delete: true, Origin: &origin, Device: plain, Frame: math.MaxUint64})
		},
		"a quarantined": func(c *catalog) {
			c.keepAway(quarantined{ID: dm.MaxDeviceID, Name: plain.Name, Born: plain.Born, Mapped: math.MaxInt64, Why: "its birth is not the one on record"})
		},
	} {
		for _, pool := range []poolRecord{
			{UUID: strings.Repeat("f", 32), Kind: poolLoop, Data: "/d", Metadata: "/m"},
			{UUID: strings.Repeat("f", 32), Kind: poolExisting, Data: long, Metadata: long, BlockSize: math.MaxUint64, Given: math.MaxUint64, Label: math.MaxInt64, Made: true},
		} {
			c := newCatalog(pool)
			c.Op, c.Cursor, c.Generation, c.Fence, c.Raising = math.MaxUint64, dm.MaxDeviceID, math.MaxUint64, math.MaxUint64, true
			fill(c)
			text, err := c.checkpoint()
			if err != nil || c.size < len(text) {
				t.Errorf("%s takes %d bytes, and %d were reckoned with (%v)", name, len(text), c.size, err)
			}
			if again, err := parseCheckpoint(text); err != nil || again.size != c.size {
				t.Errorf("%s has size %d, and again %d (%v)", name, c.size, again.size, err)
			}
		}
	}
}

// No id is used twice before all were, and then none that is in use or whose end a
// checkpoint lacks.
func TestNextID(t *testing.T) {
	c := newCatalog(poolRecord{})
	seen := map[dm.DeviceID]bool{}
	for op := uint64(1); op <= 1000; op++ {
		id, err := c.nextID(c.Cursor - 1)
		if err != nil || seen[id] {
			t.Fatal(id, seen[id], err)
		}
		seen[id] = true
		do := doAbort
		for _, r := range []record{{Do: doCreate, Op: op, Device: &device{Name: "a", ID: id}}, {Do: do, Op: op}} {
			if err := c.apply(r, 1); err != nil {
				t.Fatal(err)
			}
		}
		if op%10 == 0 {
			c.freed = map[dm.DeviceID]struct{}{} // a checkpoint
		}
	}

	c.ids[dm.MaxDeviceID] = struct{}{}
	c.ids[1] = struct{}{}
	c.freed[2] = struct{}{}
	c.ids[3] = struct{}{}
	for _, want := range []dm.DeviceID{dm.MaxDeviceID - 1, 4, 5} {
		id, err := c.nextID(c.Cursor)
		if want == dm.MaxDeviceID-1 {
			id, err = c.nextID(dm.MaxDeviceID - 2)
		}
		if id != want || err != nil {
			t.Errorf("next is %d, want %d (%v)", id, want, err)
		}
		c.Cursor = id
	}
	for _, after := range []dm.DeviceID{dm.MaxDeviceID, dm.MaxDeviceID + 1, math.MaxUint32} {
		if id, err := c.nextID(after); id != 4 || err != nil {
			t.Errorf("behind %d comes %d, want 4 (%v)", after, id, err)
		}
	}
}

// A record that does not fit changes nothing.
func TestApplyRefuses(t *testing.T) {
	c := newCatalog(poolRecord{})
	c.keepAway(quarantined{ID: 9})
	for _, r := range []record{
		{Do: doCreate, Op: 1, Device: &device{Name: "there", ID: 1}},
		{Do: doEnd, Op: 1},
		{Do: doCreate, Op: 2, Device: &device{Name: "making", ID: 2}},
		{Do: doCreate, Op: 3, Device: &device{Name: "deleting", ID: 3}},
		{Do: doEnd, Op: 3},
		{Do: doDelete, Op: 4, Name: "deleting"},
	} {
		if err := c.apply(r, 1); err != nil {
			t.Fatal(err)
		}
	}
	want, err := c.checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]record{
		"nothing":                             {},
		"an unknown verb":                     {Do: "explode"},
		"a create of nothing":                 {Do: doCreate, Op: 7},
		"a create of an open operation":       {Do: doCreate, Op: 2, Device: &device{Name: "new", ID: 7}},
		"a create of a name":                  {Do: doCreate, Op: 7, Device: &device{Name: "there", ID: 7}},
		"a create of a name being made":       {Do: doCreate, Op: 7, Device: &device{Name: "making", ID: 7}},
		"a create of an id":                   {Do: doCreate, Op: 7, Device: &device{Name: "new", ID: 1}},
		"a create of an id being made":        {Do: doCreate, Op: 7, Device: &device{Name: "new", ID: 2}},
		"a create of an id being freed":       {Do: doCreate, Op: 7, Device: &device{Name: "new", ID: 3}},
		"a create of an id in quarantine":     {Do: doCreate, Op: 7, Device: &device{Name: "new", ID: 9}},
		"a delete of nobody":                  {Do: doDelete, Op: 7, Name: "nobody"},
		"a delete of what is being made":      {Do: doDelete, Op: 7, Name: "making"},
		"a second delete":                     {Do: doDelete, Op: 7, Name: "deleting"},
		"a delete by an open operation":       {Do: doDelete, Op: 2, Name: "there"},
		"an end of nothing":                   {Do: doEnd, Op: 7},
		"a second end":                        {Do: doEnd, Op: 1},
		"an abort of nothing":                 {Do: doAbort, Op: 7},
		"an abort of a delete":                {Do: doAbort, Op: 4},
		"an adoption of nothing":              {Do: doAdopt, Op: 7},
		"an adoption of a name":               {Do: doAdopt, Op: 7, Device: &device{Name: "there", ID: 9}},
		"an adoption by a name in the making": {Do: doAdopt, Op: 7, Device: &device{Name: "making", ID: 9}},
		"an adoption of an id":                {Do: doAdopt, Op: 7, Device: &device{Name: "new", ID: 1}},
		"growth of nobody":                    {Do: doGrow, Name: "nobody", Size: 7},
		"growth of what is being made":        {Do: doGrow, Name: "making", Size: 7},
		"formatting nobody":                   {Do: doFormatting, Name: "nobody"},
		"a file system of nobody":             {Do: doFormatted, Name: "nobody"},
		"labels of nobody":                    {Do: doLabel, Name: "nobody"},
		"a birth of nobody":                   {Do: doBorn, Name: "nobody"},
	} {
		if err := c.apply(r, 2); !errors.Is(err, errBadRecord) {
			t.Errorf("%s: %v", name, err)
		}
		if have, err := c.checkpoint(); err != nil || !bytes.Equal(have, want) {
			t.Fatalf("%s has changed the catalog:\n%s\nwas\n%s", name, have, want)
		}
	}
}

// Whoever has a device keeps what it was.
func TestDevicesAreValues(t *testing.T) {
	c := newCatalog(poolRecord{})
	labels := map[string]string{"a": "b"}
	for _, r := range []record{{Do: doCreate, Op: 1, Device: &device{Name: "d", ID: 1, Size: 1}}, {Do: doEnd, Op: 1}, {Do: doLabel, Name: "d", Labels: labels}} {
		if err := c.apply(r, 1); err != nil {
			t.Fatal(err)
		}
	}
	labels["a"] = "changed"
	d, err := c.device("d")
	if err != nil || d.Labels["a"] != "b" {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.apply(record{Do: doGrow, Name: "d", Size: 2}, 2); err != nil || d.Size != 1 || c.devices["d"].Size != 2 {
		t.Errorf("%+v, %+v, %v", d, c.devices["d"], err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	s := newScribe(1) // a long text keeps the fuzzer from its work
	for range 3 {
		s.write(f)
	}
	text, err := s.c.checkpoint()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}\n{}\nnull"))
	f.Add([]byte(`{}{"operation":{}}{"operation":{}}{"device":{"name":"a"}}{"device":{"name":"a"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseCheckpoint(text)
		if err != nil {
			return
		}
		again, err := c.checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		d, err := parseCheckpoint(again)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "again", d, c)
	})
}

func FuzzReplay(f *testing.F) {
	s := newScribe(2)
	for range 3 {
		s.write(f)
	}
	f.Add(slices.Concat(s.frames...))
	f.Add([]byte(`{"do":"create","op":1,"device":{"name":"a","id":1}}{"do":"end","op":1}{"do":"abort","op":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c := newScribe(2).c
		err := c.replay(body, 1)
		text, ferr := c.checkpoint()
		if ferr != nil {
			t.Fatal(ferr)
		}
		if err != nil {
			return
		}
		d, err := parseCheckpoint(text)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "again", d, c)
	})
}
