package thinmeta

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// blockSize is the length of a metadata block in bytes.
const blockSize = int(devmapper.MetadataBlockSize * devmapper.SectorSize)

// maxBlocks is how many metadata blocks a pool can use.
const maxBlocks = uint64(devmapper.MaxMetadataSize / devmapper.MetadataBlockSize)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Every block begins with its checksum and has its own number at offset 8, so
// that neither damage nor a write that went astray passes for content.
const offNumber = 8

// A kind of block has a constant that its checksums are XORed with, so that one
// kind does not pass for another.
type kind struct {
	name string
	xor  uint32
}

var (
	superblockKind = kind{"superblock", 160774}       // dm-thin-metadata.c: SUPERBLOCK_CSUM_XOR
	nodeKind       = kind{"btree node", 121107}       // persistent-data/dm-btree-spine.c: BTREE_CSUM_XOR
	indexKind      = kind{"space map index", 160478}  // persistent-data/dm-space-map-common.c: INDEX_CSUM_XOR
	bitmapKind     = kind{"space map bitmap", 240779} // the same: BITMAP_CSUM_XOR
)

// check reports what keeps b from being block n and of kind k.
func (k kind) check(n uint64, b []byte) error {
	if have := le.Uint64(b[offNumber:]); have != n {
		return corrupt(n, "%s says that it is block %d", k.name, have)
	}
	if have, want := le.Uint32(b), checksum(b)^k.xor; have != want {
		return corrupt(n, "%s has checksum %#x, want %#x", k.name, have, want)
	}
	return nil
}

// A link leads from a block to another one. Where it leads nowhere, the block that
// has it is to blame.
type link struct{ from, to uint64 }

// checksum is the kernel's crc32c of all that follows the checksum field. The
// kernel leaves out the inversion that Go ends with
// (persistent-data/dm-block-manager.c: dm_bm_checksum).
func checksum(b []byte) uint32 {
	return ^crc32.Checksum(b[4:], castagnoli)
}
