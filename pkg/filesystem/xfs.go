package filesystem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// An xfs superblock (fs/xfs/libxfs/xfs_format.h, struct xfs_dsb; big-endian but
// for its checksum) and what is read of it.
const (
	xfsMagic = "XFSB"

	xfsBlockSize  = 4
	xfsBlocks     = 8
	xfsUUID       = 32
	xfsRootInode  = 56
	xfsAGBlocks   = 84
	xfsAGs        = 88
	xfsVersion    = 100
	xfsSectorSize = 102
	xfsInodeSize  = 104
	xfsLabel      = 108
	xfsLogBlock   = 120
	xfsLogSector  = 121
	xfsInProgress = 126
	xfsChecksum   = 224
)

type xfsSuperblock []byte

func (s xfsSuperblock) u16(at int) uint16 { return binary.BigEndian.Uint16(s[at:]) }
func (s xfsSuperblock) u32(at int) uint32 { return binary.BigEndian.Uint32(s[at:]) }
func (s xfsSuperblock) u64(at int) uint64 { return binary.BigEndian.Uint64(s[at:]) }

// examineXFS looks for xfs of the versions 4 and 5. It is never Dirty: a mount
// replays its log, and xfs_repair is not for machines to start.
func examineXFS(head []byte, size int64) (Info, error) {
	s := xfsSuperblock(head)
	if string(s[:4]) != xfsMagic {
		return Info{}, errAbsent
	}
	if err := s.check(size); err != nil {
		return Info{}, fmt.Errorf("xfs: %w", err)
	}
	return Info{
		Type:  XFS,
		UUID:  formatUUID(s[xfsUUID : xfsUUID+16]),
		Label: cString(s[xfsLabel : xfsLabel+12]),
		Size:  int64(s.u64(xfsBlocks)) * int64(s.u32(xfsBlockSize)),
	}, nil
}

// check refuses what the kernel refuses (fs/xfs/libxfs/xfs_sb.c,
// xfs_validate_sb_common).
func (s xfsSuperblock) check(size int64) error {
	if err := s.checkUnits(); err != nil {
		return err
	}
	if s[xfsInProgress] != 0 {
		return errors.New("mkfs.xfs was interrupted") // it clears this flag last
	}
	if err := s.checkSum(); err != nil {
		return err
	}
	if err := s.checkGroups(); err != nil {
		return err
	}
	return fits(s.u64(xfsBlocks), int64(s.u32(xfsBlockSize)), size)
}

// checkUnits checks the version and the sizes of sector, block and inode.
func (s xfsSuperblock) checkUnits() error {
	version := s.version()
	sector, block, inode := uint32(s.u16(xfsSectorSize)), s.u32(xfsBlockSize), s.u16(xfsInodeSize)
	switch {
	case version != 4 && version != 5:
		return fmt.Errorf("version %d", version)
	case sector < 512 || sector > 32<<10 || sector != 1<<s[xfsLogSector]:
		return fmt.Errorf("sectors of %d bytes", sector)
	case block < 512 || block > 64<<10 || block != 1<<s[xfsLogBlock]:
		return fmt.Errorf("blocks of %d bytes", block)
	case inode < 256 || inode > 2048:
		return fmt.Errorf("inodes of %d bytes", inode)
	}
	return nil
}

func (s xfsSuperblock) version() uint16 { return s.u16(xfsVersion) & 0xf }

// checkSum verifies the checksum that version 5 has: crc32c of the sector, with
// zeros for itself.
func (s xfsSuperblock) checkSum() error {
	if s.version() < 5 {
		return nil
	}
	crc := crc32.Checksum(s[:xfsChecksum], castagnoli)
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	crc = crc32.Update(crc, castagnoli, s[xfsChecksum+4:s.u16(xfsSectorSize)])
	if is := binary.LittleEndian.Uint32(s[xfsChecksum:]); is != crc {
		return fmt.Errorf("checksum %08x, want %08x", is, crc)
	}
	return nil
}

// checkGroups checks that the allocation groups make up the blocks. Only the
// last one may be smaller.
func (s xfsSuperblock) checkGroups() error {
	blocks, groups, each := s.u64(xfsBlocks), uint64(s.u32(xfsAGs)), uint64(s.u32(xfsAGBlocks))
	if groups == 0 || each == 0 || blocks > groups*each || blocks <= (groups-1)*each {
		return fmt.Errorf("%d blocks in %d groups of %d", blocks, groups, each)
	}
	if s.u64(xfsRootInode) == 0 {
		return errors.New("no root inode")
	}
	return nil
}
