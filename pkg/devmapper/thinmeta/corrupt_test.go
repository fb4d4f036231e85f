package thinmeta

import (
	"errors"
	"fmt"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// spoil changes an image; the block that it returns gets a new checksum.
type spoil func(im *image) (block uint64, k kind)

// field overwrites 8 bytes of a block.
func field(block func(*image) uint64, k kind, offset int, value uint64) spoil {
	return func(im *image) (uint64, kind) {
		n := block(im)
		le.PutUint64(im.blocks[n][offset:], value)
		return n, k
	}
}

// field32 overwrites 4 bytes of a block.
func field32(block func(*image) uint64, k kind, offset int, value uint32) spoil {
	return func(im *image) (uint64, kind) {
		n := block(im)
		le.PutUint32(im.blocks[n][offset:], value)
		return n, k
	}
}

func super(*image) uint64             { return 0 }
func detailsRoot(im *image) uint64    { return le.Uint64(im.blocks[0][offDetails:]) }
func rootsRoot(im *image) uint64      { return le.Uint64(im.blocks[0][offMappings:]) }
func metadataIndex(im *image) uint64  { return spaceMapRoot(im.blocks[0][offMetadataMap:]) }
func metadataBitmap(im *image) uint64 { return le.Uint64(im.blocks[metadataIndex(im)][bitmapHeader:]) }

// tree and leaf are the root of device 0's mappings, and the first leaf of it.
func treeRoot(im *image) uint64 {
	b := im.blocks[rootsRoot(im)]
	most := int(le.Uint32(b[offMaxEntries:]))
	return le.Uint64(b[offKeys+most*keySize:])
}

func leaf(im *image) uint64 {
	n := treeRoot(im)
	for le.Uint32(im.blocks[n][offFlags:]) == internalNode {
		most := int(le.Uint32(im.blocks[n][offMaxEntries:]))
		n = le.Uint64(im.blocks[n][offKeys+most*keySize:])
	}
	return n
}

// Every field that can be wrong, wrong, with a checksum that says it is right.
var spoils = map[string]spoil{
	"superblock magic":               field(super, superblockKind, offMagic, magic+1),
	"superblock sector counts":       field32(super, superblockKind, offDataBlock, 127),
	"superblock small blocks":        field32(super, superblockKind, offDataBlock, 0),
	"superblock large blocks":        field32(super, superblockKind, offDataBlock, 1<<22),
	"superblock metadata blocks":     field32(super, superblockKind, offMetadataBlock, 16),
	"superblock metadata total":      field(super, superblockKind, offMetadataMap, maxBlocks+1),
	"superblock metadata used":       field(super, superblockKind, offMetadataMap+8, maxBlocks),
	"superblock data total":          field(super, superblockKind, offDataMap, maxData+1),
	"superblock data used":           field(super, superblockKind, offDataMap+8, maxData),
	"superblock data without map":    field(super, superblockKind, offDataMap, 50_000),
	"superblock details root 0":      field(super, superblockKind, offDetails, 0),
	"superblock details root far":    field(super, superblockKind, offDetails, 1<<40),
	"superblock mappings root 0":     field(super, superblockKind, offMappings, 0),
	"superblock mappings root far":   field(super, superblockKind, offMappings, 1<<63),
	"superblock data map root":       field(super, superblockKind, offDataMap+16, 0),
	"superblock metadata map root":   field(super, superblockKind, offMetadataMap+16, 1<<40),
	"details flags":                  field32(detailsRoot, nodeKind, offFlags, 3),
	"details value size":             field32(detailsRoot, nodeKind, offValueSize, 8),
	"details max entries":            field32(detailsRoot, nodeKind, offMaxEntries, 1000),
	"details id":                     field(detailsRoot, nodeKind, offKeys, uint64(devmapper.MaxDeviceID)+1),
	"device in one of two trees":     field32(detailsRoot, nodeKind, offEntries, 1),
	"device in the other tree":       field32(rootsRoot, nodeKind, offEntries, 1),
	"tree root 0":                    field(rootsRoot, nodeKind, offKeys+6*keySize, 0),
	"tree root far":                  field(rootsRoot, nodeKind, offKeys+6*keySize, 1<<50),
	"tree root is a bitmap":          pointTo(metadataBitmap),
	"tree root is another tree":      pointTo(detailsRoot),
	"tree leads in a circle":         circle,
	"subtree is empty":               field32(leaf, nodeKind, offEntries, 0),
	"leaf flags":                     field32(leaf, nodeKind, offFlags, 0),
	"leaf says it is internal":       field32(leaf, nodeKind, offFlags, internalNode),
	"leaf value size":                field32(leaf, nodeKind, offValueSize, 24),
	"leaf value size huge":           field32(leaf, nodeKind, offValueSize, 1<<31),
	"leaf entries":                   field32(leaf, nodeKind, offEntries, 200),
	"leaf entries huge":              field32(leaf, nodeKind, offEntries, 1<<32-1),
	"leaf max entries huge":          field32(leaf, nodeKind, offMaxEntries, 1<<32-1),
	"leaf keys fall":                 field(leaf, nodeKind, offKeys+keySize, 0),
	"leaf key outside its subtree":   field(leaf, nodeKind, offKeys+keySize, 1<<40),
	"leaf key outside any device":    field(leaf, nodeKind, offKeys+keySize, 1<<60),
	"leaf data block":                dataBlock(1 << 39),
	"leaf data block behind the end": dataBlock(40_000),
	"leaf has lost an entry":         loseEntry,
	"tree is another device's":       swapTrees,
}

// pointTo lets device 0 have a tree that is none.
func pointTo(what func(*image) uint64) spoil {
	return func(im *image) (uint64, kind) {
		le.PutUint64(im.blocks[rootsRoot(im)][offKeys+6*keySize:], what(im))
		return rootsRoot(im), nodeKind
	}
}

// circle lets the root of a tree be its own first child.
func circle(im *image) (uint64, kind) {
	n := treeRoot(im)
	b := im.blocks[n]
	le.PutUint32(b[offEntries:], 1)
	le.PutUint64(b[offKeys+int(le.Uint32(b[offMaxEntries:]))*keySize:], n)
	return n, nodeKind
}

func dataBlock(data uint64) spoil {
	return func(im *image) (uint64, kind) {
		n := leaf(im)
		most := int(le.Uint32(im.blocks[n][offMaxEntries:]))
		le.PutUint64(im.blocks[n][offKeys+most*keySize:], data<<timeBits)
		return n, nodeKind
	}
}

func loseEntry(im *image) (uint64, kind) {
	n := leaf(im)
	b := im.blocks[n]
	le.PutUint32(b[offEntries:], le.Uint32(b[offEntries:])-1)
	return n, nodeKind
}

func swapTrees(im *image) (uint64, kind) {
	b := im.blocks[rootsRoot(im)][offKeys+6*keySize:]
	first, second := le.Uint64(b), le.Uint64(b[8:])
	le.PutUint64(b, second)
	le.PutUint64(b[8:], first)
	return rootsRoot(im), nodeKind
}

// spoilable is a pool with two devices, so that the trees of devices are single
// nodes, of which device 0 has a tree of several levels.
func spoilable() *image {
	m := newModel(3)
	m.create(0)
	m.create(1)
	for _, block := range m.Perm(300) {
		m.write(0, uint64(block))
	}
	m.write(1, 5)
	return m.image()
}

// askAll asks all questions and returns the first error.
func askAll(m *Metadata) error {
	_, err1 := m.Devices()
	_, err2 := m.Ranges(0)
	_, err3 := m.Ranges(1)
	_, err4 := m.Exclusive(0)
	return errors.Join(err1, err2, err3, err4)
}

func TestSpoiledFields(t *testing.T) {
	if err := askAll(openImage(spoilable().bytes())); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			im := spoilable()
			im.seal(spoil(im))
			err := askAll(openImage(im.bytes()))
			if c := (*CorruptError)(nil); !errors.As(err, &c) {
				t.Fatalf("error is %v", err)
			}
			t.Log(err)
		})
	}
}

// A block without a valid checksum or number is found whichever it is.
func TestSpoiledBlocks(t *testing.T) {
	im := spoilable()
	sound := openImage(im.bytes())
	if err := askAll(sound); err != nil {
		t.Fatal(err)
	}
	found := 0
	for block := range uint64(len(im.blocks)) {
		for _, offset := range []int{0, offFlags, offNumber, 100, blockSize - 1} {
			im.blocks[block][offset] ^= 0x10
			err := askAll(openImage(im.bytes()))
			im.blocks[block][offset] ^= 0x10
			found++
			if c := (*CorruptError)(nil); !errors.As(err, &c) || c.Block != block {
				t.Fatalf("block %d, byte %d: error is %v", block, offset, err)
			}
		}
	}
	t.Logf("%d spoiled bytes found", found)
}

func TestUnsupported(t *testing.T) {
	for name, spoil := range map[string]spoil{
		"version":      field32(super, superblockKind, offVersion, 3),
		"version 0":    field32(super, superblockKind, offVersion, 0),
		"incompatible": field32(super, superblockKind, offIncompat, 1),
	} {
		im := spoilable()
		im.seal(spoil(im))
		if err := askAll(openImage(im.bytes())); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestTruncatedImages(t *testing.T) {
	whole := spoilable().bytes()
	for length := 0; length < len(whole); length += 1000 {
		err := askAll(openImage(whole[:length]))
		if c := (*CorruptError)(nil); !errors.As(err, &c) {
			t.Fatalf("%d bytes: error is %v", length, err)
		}
	}
}

func TestErrorsSayWhat(t *testing.T) {
	im := spoilable()
	m := openImage(im.bytes())
	_, err := m.Ranges(7)
	want := "image: ranges of device 7: no such thin device: 7"
	if fmt.Sprint(err) != want || !errors.Is(err, ErrNoSuchDevice) {
		t.Errorf("error is %q, want %q", err, want)
	}
	if _, err := m.Delta(0, 7); !errors.Is(err, ErrNoSuchDevice) {
		t.Errorf("error is %v", err)
	}
	blank := openImage(make([]byte, 1<<20))
	if _, err := blank.Devices(); !errors.Is(err, ErrBlank) {
		t.Errorf("error is %v", err)
	}
	held := openImage(im.bytes())
	held.held = true
	if _, err := held.Devices(); !errors.Is(err, ErrNotHeld) {
		t.Errorf("error is %v", err)
	}
}
