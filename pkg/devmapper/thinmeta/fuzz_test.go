package thinmeta

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// FuzzImage flips bits of the kernel's images. Whatever they say then, no question
// panics, runs away or is answered with what does not hold together. With sealed
// the blocks get new checksums, so that the damage is not found by these alone.
// Which two devices are asked about is for first to say.
func FuzzImage(f *testing.F) {
	golden := goldenImages(f)
	names := slices.Sorted(maps.Keys(golden))
	used := map[string][]uint64{}
	for i, name := range names {
		used[name] = blocksRead(f, golden[name])
		f.Add(uint8(i), uint8(0), []byte{0, 0, 44, 1}, false)
		f.Add(uint8(i), uint8(1), []byte{0, 1, 72, 1}, true)
		f.Add(uint8(i), uint8(2), []byte{1, 0, 16, 1, 2, 0, 32, 255}, true)
	}
	f.Fuzz(func(t *testing.T, which, first uint8, flips []byte, sealed bool) {
		name := names[int(which)%len(names)]
		image := slices.Clone(golden[name])
		for flip := range slices.Chunk(flips, 4) {
			if len(flip) == 4 {
				block := used[name][int(flip[0])%len(used[name])]
				damage(image[block*uint64(blockSize):][:blockSize], flip[1:], sealed)
			}
		}
		m := openImage(image)
		defer m.Close()
		askAbout(t, m, int(first))
		if most := uint64(20_000); m.Reads() > most {
			t.Errorf("%d reads of an image of %d blocks", m.Reads(), len(image)/blockSize)
		}
	})
}

// blocksRead returns the blocks of an image that answers are made of.
func blocksRead(t testing.TB, image []byte) []uint64 {
	t.Helper()
	disk := &tracedDisk{ReaderAt: bytes.NewReader(image), read: map[uint64]bool{}}
	s, err := newSource(disk)
	if err != nil {
		t.Fatal(err)
	}
	m := &Metadata{source: s}
	defer m.Close()
	devices, err := m.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		_, err1 := m.Ranges(d.ID)
		_, err2 := m.Exclusive(d.ID)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	return slices.Sorted(maps.Keys(disk.read))
}

// A tracedDisk remembers which blocks were read, of those read one by one.
type tracedDisk struct {
	io.ReaderAt
	read map[uint64]bool
}

func (d *tracedDisk) ReadAt(b []byte, at int64) (int, error) {
	d.read[uint64(at)/uint64(blockSize)] = true
	return d.ReaderAt.ReadAt(b, at)
}

// damage changes a byte of a block, two bytes telling which and one how, and if
// sealed the block's checksum.
func damage(block, flip []byte, sealed bool) {
	at := (int(flip[0])<<8 | int(flip[1])) % blockSize
	k, known := kindOf(block)
	block[at] ^= flip[2]
	if sealed && known {
		le.PutUint32(block, checksum(block)^k.xor)
	}
}

func kindOf(block []byte) (kind, bool) {
	for _, k := range []kind{superblockKind, nodeKind, indexKind, bitmapKind} {
		if le.Uint32(block) == checksum(block)^k.xor {
			return k, true
		}
	}
	return kind{}, false
}

// askAbout asks all that there is to ask about two devices, and compares the answers.
func askAbout(t *testing.T, m *Metadata, first int) {
	t.Helper()
	devices, err := m.Devices()
	sound(t, err)
	if len(devices) == 0 {
		devices = []Device{{ID: 0}, {ID: 1}} // they may be there all the same
	}
	a, b := devices[first%len(devices)].ID, devices[(first+1)%len(devices)].ID
	askDevice(t, m, a)
	compareDelta(t, m, a, b)
}

// compareDelta compares a delta, which skips what two devices share, with all that they
// map. A delta alone may well be answered: it does not see what it skips.
func compareDelta(t *testing.T, m *Metadata, from, to devmapper.DeviceID) {
	t.Helper()
	delta, err := m.Delta(from, to)
	sound(t, err)
	a, err1 := m.Mappings(from)
	b, err2 := m.Mappings(to)
	if errors.Join(err, err1, err2) == nil {
		equal(t, "delta", wantDelta(blocksOf(a), blocksOf(b)))(delta, nil)
	}
}

func blocksOf(mappings []Mapping) map[uint64]uint64 {
	blocks := map[uint64]uint64{}
	for _, m := range mappings {
		for i := range m.Length {
			blocks[uint64(m.Begin+i)] = uint64(m.Data + i)
		}
	}
	return blocks
}

func askDevice(t *testing.T, m *Metadata, id devmapper.DeviceID) {
	t.Helper()
	d, err := m.Device(id)
	sound(t, err)
	if err != nil {
		return
	}
	ranges, err := m.Ranges(id)
	sound(t, err)
	if err != nil {
		return
	}
	if sum := Sum(ranges); sum != d.Mapped {
		t.Errorf("device %d maps %d blocks, by its details %d", id, sum, d.Mapped)
	}
	if extent, err := m.Extent(id); err == nil && len(ranges) > 0 && extent != ranges[len(ranges)-1].End() {
		t.Errorf("device %d ends at %d, its ranges at %d", id, extent, ranges[len(ranges)-1].End())
	}
	if same, err := m.Delta(id, id); err != nil || len(same) > 0 {
		t.Errorf("device %d differs from itself in %v, error %v", id, same, err)
	}
	exclusive, err := m.Exclusive(id)
	sound(t, err)
	if Sum(exclusive) > d.Mapped {
		t.Errorf("device %d maps %d blocks, %d of them alone", id, d.Mapped, Sum(exclusive))
	}
}

// sound fails if an error is of the kind that an image at rest cannot cause.
func sound(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrChanged) || errors.Is(err, ErrNotHeld) {
		t.Errorf("an image at rest: %v", err)
	}
}
