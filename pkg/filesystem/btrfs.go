package filesystem

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A btrfs superblock (include/uapi/linux/btrfs_tree.h, struct btrfs_super_block;
// little-endian) and what is read of it.
const (
	btrfsOffset = 64 << 10
	btrfsSize   = 4096
	btrfsMagic  = "_BHRfS_M"

	btrfsUUID         = 0x20
	btrfsAddress      = 0x30
	btrfsMagicAt      = 0x40
	btrfsTotalBytes   = 0x70
	btrfsChecksumType = 0xc4
	btrfsLabel        = 0x12b
	btrfsChecksumOf   = 0x20 // and all that follows
)

// examineBtrfs looks for btrfs. Its size is that of all its devices together.
func examineBtrfs(head []byte, _ int64) (Info, error) {
	s := head[btrfsOffset : btrfsOffset+btrfsSize]
	if string(s[btrfsMagicAt:btrfsMagicAt+8]) != btrfsMagic {
		return Info{}, errAbsent
	}
	if address := binary.LittleEndian.Uint64(s[btrfsAddress:]); address != btrfsOffset {
		return Info{}, fmt.Errorf("btrfs: superblock says that it is at %d", address)
	}
	if err := checkBtrfsSum(s); err != nil {
		return Info{}, fmt.Errorf("btrfs: %w", err)
	}
	return Info{
		Type:  Btrfs,
		UUID:  formatUUID(s[btrfsUUID : btrfsUUID+16]),
		Label: cString(s[btrfsLabel : btrfsLabel+256]),
		Size:  int64(binary.LittleEndian.Uint64(s[btrfsTotalBytes:])),
	}, nil
}

// checkBtrfsSum verifies crc32c, the default. The others are taken on trust: what
// is recognised here is only ever refused.
func checkBtrfsSum(s []byte) error {
	if binary.LittleEndian.Uint16(s[btrfsChecksumType:]) != 0 {
		return nil
	}
	want := crc32.Checksum(s[btrfsChecksumOf:], castagnoli)
	if is := binary.LittleEndian.Uint32(s); is != want {
		return fmt.Errorf("checksum %08x, want %08x", is, want)
	}
	return nil
}
