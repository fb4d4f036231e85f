package thinmeta

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A flip is four bytes of fuzz: which byte of the image, and which of its bits.
const flipSize = 4

// FuzzImage flips bits of the kernel's images. Whatever they say then, no question
// panics, runs away or is answered with what does not hold together. With sealed
// the blocks get new checksums, so that the damage is not found by these alone.
func FuzzImage(f *testing.F) {
	golden := goldenImages(f)
	names := slices.Sorted(maps.Keys(golden))
	for i := range names {
		f.Add(uint8(i), []byte{0, 0, 44, 1}, false)
		f.Add(uint8(i), []byte{0, 1, 72, 1}, true)
		f.Add(uint8(i), []byte{0, 16, 16, 1, 0, 32, 32, 255}, true)
	}
	f.Fuzz(func(t *testing.T, which uint8, flips []byte, sealed bool) {
		image := slices.Clone(golden[names[int(which)%len(names)]])
		for ; len(flips) >= flipSize; flips = flips[flipSize:] {
			flip(image, flips, sealed)
		}
		m := openImage(image)
		defer m.Close()
		askEverything(t, m)
		if most := uint64(100_000); m.Reads() > most {
			t.Errorf("%d reads of an image of %d blocks", m.Reads(), len(image)/blockSize)
		}
	})
}

// flip changes a byte, and if sealed the checksum of its block.
func flip(image, flip []byte, sealed bool) {
	at := int(flip[0])<<16 | int(flip[1])<<8 | int(flip[2])
	at %= len(image)
	block := image[at/blockSize*blockSize:][:blockSize]
	k, known := kindOf(block)
	image[at] ^= flip[3]
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

// askEverything asks everything that there is to ask, and compares the answers.
func askEverything(t *testing.T, m *Metadata) {
	t.Helper()
	devices, err := m.Devices()
	sound(t, err)
	if err != nil {
		devices = []Device{{ID: 0}, {ID: 1}} // they may be there all the same
	}
	for i, d := range devices {
		if i >= 8 {
			break
		}
		askDevice(t, m, d.ID)
		_, err := m.Delta(d.ID, devices[(i+1)%len(devices)].ID)
		sound(t, err)
	}
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
