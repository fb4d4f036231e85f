package thinmeta

import (
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Superblock is what a pool's metadata begins with
// (drivers/md/dm-thin-metadata.c: struct thin_disk_superblock).
type Superblock struct {
	TransactionID uint64 // as set by Pool.SetTransactionID
	// Time is raised by each snapshot. Mappings have room for 24 bits of it; what
	// the kernel does with more is corrupt data (pack_block_time).
	Time       uint32
	NeedsCheck bool // a metadata operation failed; the pool stays read-only until it was checked
	BlockSize  devmapper.Sectors
	HeldRoot   uint64          // metadata block of the held snapshot's superblock; 0 if none is held
	Data       devmapper.Usage // in blocks of BlockSize
	Metadata   devmapper.Usage // in blocks of devmapper.MetadataBlockSize, without the kernel's reserve
}

// Superblock returns the superblock as of the last commit; also of metadata that
// was opened with OpenHeld.
func (m *Metadata) Superblock() (Superblock, error) {
	live := &Metadata{source: m.source, path: m.path}
	s, err := settled(live, func(now *moment) (Superblock, error) { return now.super.Superblock, nil })
	return s, m.failed(err, "read superblock")
}

// A superblock is a Superblock with the roots of the trees.
type superblock struct {
	Superblock
	mappings    link // to a tree of device ids, of the roots of trees of mappings
	details     link // to a tree of device ids, of details
	dataMap     link // to a tree of bitmaps
	metadataMap link // to an index of bitmaps, a single block
}

// Offsets in the superblock. The kernel leaves its uuid field zero.
const (
	offFlags         = 4
	offMagic         = 32
	offVersion       = 40
	offTime          = 44
	offTransaction   = 48
	offHeldRoot      = 56
	offDataMap       = 64
	offMetadataMap   = 192
	offMappings      = 320
	offDetails       = 328
	offDataBlock     = 336
	offMetadataBlock = 340
	offIncompat      = 360
)

const (
	magic = 27022010 // THIN_SUPERBLOCK_MAGIC
	// version is THIN_VERSION. The kernel does not look at it, and thin_restore
	// writes 1 unless its input says otherwise.
	version    = 2
	needsCheck = 1 << 0  // THIN_METADATA_NEEDS_CHECK_FLAG
	maxData    = 1 << 40 // a mapping's data block has 40 bits
)

// parseSuperblock reads the superblock in block n: block 0, or a held copy.
func parseSuperblock(n uint64, b []byte) (superblock, error) {
	if allZero(b) {
		return superblock{}, ErrBlank
	}
	if have := le.Uint64(b[offMagic:]); have != magic {
		return superblock{}, corrupt(n, "no superblock: magic number is %d, want %d", have, magic)
	}
	if err := superblockKind.check(n, b); err != nil {
		return superblock{}, err
	}
	if have := le.Uint32(b[offVersion:]); have < 1 || have > version {
		return superblock{}, fmt.Errorf("%w: version %d", ErrUnsupported, have)
	}
	if have := le.Uint32(b[offIncompat:]); have != 0 {
		return superblock{}, fmt.Errorf("%w: incompatible features %#x", ErrUnsupported, have)
	}
	s := decodeSuperblock(n, b)
	return s, s.check(n, b)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func decodeSuperblock(n uint64, b []byte) superblock {
	return superblock{
		Superblock: Superblock{
			TransactionID: le.Uint64(b[offTransaction:]),
			Time:          le.Uint32(b[offTime:]),
			NeedsCheck:    le.Uint32(b[offFlags:])&needsCheck != 0,
			BlockSize:     devmapper.Sectors(le.Uint32(b[offDataBlock:])),
			HeldRoot:      le.Uint64(b[offHeldRoot:]),
			Data:          spaceMapUsage(b[offDataMap:]),
			Metadata:      spaceMapUsage(b[offMetadataMap:]),
		},
		mappings:    link{n, le.Uint64(b[offMappings:])},
		details:     link{n, le.Uint64(b[offDetails:])},
		dataMap:     link{n, spaceMapRoot(b[offDataMap:])},
		metadataMap: link{n, spaceMapRoot(b[offMetadataMap:])},
	}
}

// check refuses figures that no pool has. The superblock's own field
// metadata_nr_blocks is not looked at: it keeps the size that the metadata had
// when it was formatted, while the space map grows with the device.
func (s superblock) check(n uint64, b []byte) error {
	size := s.BlockSize
	if size < devmapper.MinBlockSize || size > devmapper.MaxBlockSize || size%devmapper.MinBlockSize != 0 {
		return corrupt(n, "data blocks have %d sectors", size)
	}
	if have := le.Uint32(b[offMetadataBlock:]); have != uint32(devmapper.MetadataBlockSize) {
		return corrupt(n, "metadata blocks have %d sectors", have)
	}
	if s.Metadata.Total > maxBlocks || s.Metadata.Used > s.Metadata.Total {
		return corrupt(n, "%d of %d metadata blocks are in use", s.Metadata.Used, s.Metadata.Total)
	}
	if s.Data.Total > maxData || s.Data.Used > s.Data.Total {
		return corrupt(n, "%d of %d data blocks are in use", s.Data.Used, s.Data.Total)
	}
	return nil
}
