package thinmeta

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A busy disk holds one image after the other, as a pool that commits while it is
// read. Blocks are used anew at once, which is worse than what the kernel does.
type busyDisk struct {
	images [][]byte
	turns  []int // how many reads each image lasts; the last one stays
	reads  int   // of the first image
}

// add adds an image that follows the others after a number of reads.
func (d *busyDisk) add(image []byte, after int) {
	if len(d.images) > 0 {
		d.turns = append(d.turns, after)
	}
	d.images = append(d.images, image)
}

func (d *busyDisk) ReadAt(b []byte, at int64) (int, error) {
	if len(d.turns) > 0 && d.reads == d.turns[0] {
		d.images, d.turns, d.reads = d.images[1:], d.turns[1:], 0
	}
	d.reads++
	if int(at) < len(d.images[0]) {
		copy(b, d.images[0][at:])
	}
	return len(b), nil // a disk is larger than what was written to it
}

func (d *busyDisk) open(t *testing.T) *Metadata {
	s, err := newSource(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return &Metadata{source: s, path: "busy disk"}
}

// Two pools with the same superblock and other nodes in the same places: what a
// pool looks like before and after two commits, with bad luck.
func twins(t *testing.T) (a, b *model, images [2][]byte) {
	for i, m := range []**model{&a, &b} {
		*m = newModel(7)
		(*m).nextData = uint64(i) * 1000
		(*m).live(15)
		images[i] = (*m).image().bytes()
	}
	if !bytes.Equal(images[0][:blockSize], images[1][:blockSize]) {
		t.Fatal("twins differ in their superblock")
	}
	return a, b, images
}

// An answer is never a mixture, whenever the pool turns into its twin, and also
// if it turns back.
func TestEqualSuperblocksDoNotDeceive(t *testing.T) {
	a, b, images := twins(t)
	id := a.ids()[0]
	wanted := [][]Mapping{wantMappings(a.devices[id].blocks), wantMappings(b.devices[id].blocks)}
	quiet := openImage(images[0])
	equal(t, "mappings", wanted[0])(quiet.Mappings(id))
	for first := range int(quiet.Reads()) + 1 {
		for second := range int(quiet.Reads()) + 1 {
			disk := &busyDisk{images: [][]byte{images[0], images[1], images[0]}, turns: []int{first, second}}
			have, err := disk.open(t).Mappings(id)
			if err != nil || !slices.ContainsFunc(wanted, func(w []Mapping) bool { return reflect.DeepEqual(have, w) }) {
				t.Fatalf("after %d and %d reads: %v, %v", first, second, have, err)
			}
		}
	}
}

// Whatever a pool does while it is read, an answer is that of one of its states,
// or there is none.
func TestAnswersAreOfOneState(t *testing.T) {
	seeds(t, 100, func(t *testing.T, seed uint64) {
		m := newModel(seed)
		m.live(m.IntN(100))
		idle, busy := devmapper.DeviceID(100), m.ids()[0]
		m.snapshot(idle, busy)
		disk := &busyDisk{}
		var devices [][]Device
		var ranges, exclusive [][]Range
		for range 1 + m.IntN(5) {
			disk.add(m.image().bytes(), m.IntN(40))
			devices = append(devices, m.wantDevices())
			ranges = append(ranges, wantRanges(m.devices[busy].blocks))
			exclusive = append(exclusive, m.wantExclusive(idle))
			m.stretch(busy, m.write)
			m.stretch(busy, m.discard)
		}
		again := func() *Metadata { d := *disk; return d.open(t) }
		oneOf(t, "devices", devices)(again().Devices())
		oneOf(t, "busy ranges", ranges)(again().Ranges(busy))
		equal(t, "idle ranges", wantRanges(m.devices[idle].blocks))(again().Ranges(idle))
		oneOf(t, "idle exclusive", exclusive)(again().Exclusive(idle))
	})
}

// oneOf fails the test if an answer is given that was never true.
func oneOf[T any](t *testing.T, what string, wanted []T) func(have T, err error) {
	t.Helper()
	return func(have T, err error) {
		t.Helper()
		if errors.Is(err, ErrChanged) {
			return
		}
		if err != nil || !slices.ContainsFunc(wanted, func(w T) bool { return reflect.DeepEqual(have, w) }) {
			t.Fatalf("%s: have %v, %v; want one of %v", what, have, err, wanted)
		}
	}
}

// A pool that never rests is given up, in the end.
func TestRestlessPool(t *testing.T) {
	m := newModel(1)
	m.create(0)
	disk := &busyDisk{}
	for range 10 * attempts {
		m.time++
		disk.add(m.image().bytes(), 2)
	}
	if _, err := disk.open(t).Devices(); !errors.Is(err, ErrChanged) {
		t.Errorf("error is %v", err)
	}
}
