package filesystem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// An ext superblock (fs/ext4/ext4.h, struct ext4_super_block; little-endian) and
// what is read of it.
const (
	extOffset = 1024
	extSize   = 1024

	extMagic        = 0xef53
	extBlocksLow    = 0x04
	extFirstData    = 0x14
	extLogBlockSize = 0x18
	extLogCluster   = 0x1c
	extPerGroup     = 0x20 // blocks
	extClusters     = 0x24 // clusters per group
	extInodes       = 0x28 // per group
	extMagicAt      = 0x38
	extState        = 0x3a
	extRevision     = 0x4c
	extInodeSize    = 0x58
	extIncompat     = 0x60
	extROCompat     = 0x64
	extUUID         = 0x68
	extLabel        = 0x78
	extReserved     = 0xce // blocks behind the group descriptors
	extBlocksHigh   = 0x150
	extChecksumType = 0x175
	extChecksum     = 0x3fc

	extStateValid = 1 // it was unmounted, or has a journal for that
	extStateError = 2 // the kernel saw something wrong

	extIncompatJournalDev = 0x8
	extIncompat64Bit      = 0x80
	extROCompatBigalloc   = 0x200
	extROCompatChecksums  = 0x400
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type extSuperblock []byte

func (s extSuperblock) u16(at int) uint16 { return binary.LittleEndian.Uint16(s[at:]) }
func (s extSuperblock) u32(at int) uint32 { return binary.LittleEndian.Uint32(s[at:]) }

// examineExt looks for ext2, ext3 and ext4.
func examineExt(head []byte, size int64) (Info, error) {
	s := extSuperblock(head[extOffset : extOffset+extSize])
	if s.u16(extMagicAt) != extMagic {
		return Info{}, errAbsent
	}
	if err := errors.Join(s.checkSum(), s.checkGeometry(size)); err != nil {
		return Info{}, fmt.Errorf("ext4: %w", err)
	}
	return Info{
		Type:  Ext4,
		UUID:  formatUUID(s[extUUID : extUUID+16]),
		Label: cString(s[extLabel : extLabel+16]),
		Size:  int64(s.blocks()) * s.blockSize(),
		// With a journal the valid flag stays set while mounted (fs/ext4/super.c,
		// ext4_setup_super); an e2fsck that was interrupted leaves it clear.
		Dirty: s.u16(extState)&extStateValid == 0 || s.u16(extState)&extStateError != 0,
	}, nil
}

func (s extSuperblock) blockSize() int64 { return 1024 << s.u32(extLogBlockSize) }

func (s extSuperblock) blocks() uint64 {
	blocks := uint64(s.u32(extBlocksLow))
	if s.u32(extIncompat)&extIncompat64Bit != 0 {
		blocks |= uint64(s.u32(extBlocksHigh)) << 32
	}
	return blocks
}

// checkSum verifies the checksum, if there is one: crc32c without the final
// inversion (fs/ext4/super.c, ext4_superblock_csum).
func (s extSuperblock) checkSum() error {
	if s.u32(extROCompat)&extROCompatChecksums == 0 {
		return nil
	}
	if kind := s[extChecksumType]; kind != 1 {
		return fmt.Errorf("checksum of unknown type %d", kind)
	}
	if want, is := ^crc32.Checksum(s[:extChecksum], castagnoli), s.u32(extChecksum); want != is {
		return fmt.Errorf("checksum %08x, want %08x", is, want)
	}
	return nil
}

// checkGeometry refuses what the kernel refuses (fs/ext4/super.c,
// ext4_fill_super).
func (s extSuperblock) checkGeometry(size int64) error {
	if s.u32(extIncompat)&extIncompatJournalDev != 0 {
		return errors.New("an external journal and no file system")
	}
	if log := s.u32(extLogBlockSize); log > 6 {
		return fmt.Errorf("block size 2^%d KiB", log)
	}
	if err := s.checkGroups(); err != nil {
		return err
	}
	if first := s.u32(extFirstData); first > 1 || uint64(first) >= s.blocks() {
		return fmt.Errorf("first data block %d of %d", first, s.blocks())
	}
	return fits(s.blocks(), s.blockSize(), size)
}

// checkGroups checks the sizes of what a block group has. Each kind has a bitmap
// of one block.
func (s extSuperblock) checkGroups() error {
	bits := uint32(8 * s.blockSize())
	clusters := s.u32(extPerGroup)
	if s.u32(extROCompat)&extROCompatBigalloc != 0 {
		clusters = s.u32(extClusters)
	}
	if inodes := s.u32(extInodes); clusters == 0 || clusters > bits || inodes == 0 || inodes > bits {
		return fmt.Errorf("groups of %d clusters and %d inodes", clusters, inodes)
	}
	inode := int64(s.u16(extInodeSize)) // revision 0 has no such field
	if s.u32(extRevision) > 0 && (inode < 128 || inode > s.blockSize() || inode&(inode-1) != 0) {
		return fmt.Errorf("inodes of %d bytes", inode)
	}
	return nil
}
