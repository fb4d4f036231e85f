package filesystem

import "encoding/binary"

// A mark is a signature that is a constant at one place.
type mark struct {
	name   string
	offset int64 // negative: from the end
	magic  string
	align  int64 // the end is a multiple of this; 0 is 1
}

// at returns the place of m on a device of size bytes.
func (m mark) at(size int64) int64 {
	switch {
	case m.offset >= 0:
		return m.offset
	case m.align > 0:
		size -= size % m.align
	}
	return size + m.offset
}

// marks has what is known of others' formats. Those of less than four bytes are
// left out, they are found in any data; a disk that has only such a one has
// unknown data.
var marks = []mark{
	// Partition tables. A disk of 4 KiB sectors has them at sector 1 too.
	{name: "GPT partition table", offset: 512, magic: "EFI PART"},
	{name: "GPT partition table", offset: 4096, magic: "EFI PART"},
	{name: "GPT backup partition table", offset: -512, magic: "EFI PART"},
	{name: "GPT backup partition table", offset: -4096, magic: "EFI PART"},
	{name: "BSD disklabel", offset: 512, magic: "\x57\x45\x56\x82"},

	// Volume managers and caches.
	{name: "LVM2 physical volume", offset: 0, magic: "LABELONE"},
	{name: "LVM2 physical volume", offset: 512, magic: "LABELONE"}, // where LVM2 puts it; it reads all four
	{name: "LVM2 physical volume", offset: 1024, magic: "LABELONE"},
	{name: "LVM2 physical volume", offset: 1536, magic: "LABELONE"},
	{name: "LVM1 physical volume", offset: 0, magic: "HM\x01\x00"},
	{name: "LVM1 physical volume", offset: 0, magic: "HM\x02\x00"},
	{name: "Stratis block device", offset: 516, magic: "!Stra0tis\x86\xff\x02^\x41rh"},
	{name: "Stratis block device", offset: 4612, magic: "!Stra0tis\x86\xff\x02^\x41rh"},
	{name: "VDO volume", offset: 0, magic: "dmvdo001"},
	{name: "bcache device", offset: 4120, magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{name: "bcachefs file system", offset: 4120, magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{name: "device-mapper snapshot", offset: 0, magic: "SnAp"},
	{name: "device-mapper integrity device", offset: 0, magic: "integrt\x00"},
	{name: "device-mapper verity device", offset: 0, magic: "verity\x00\x00"},
	{name: "thin pool metadata", offset: 32, magic: littleEndian64(27022010)},            // drivers/md/dm-thin-metadata.c
	{name: "device-mapper cache metadata", offset: 32, magic: littleEndian64(0o6142003)}, // octal, as it is written in drivers/md/dm-cache-metadata.c
	{name: "Oracle ASM disk", offset: 32, magic: "ORCLDISK"},

	// RAIDs. The versions of md differ in little but the place (md(4)).
	{name: "Linux RAID 0.90 member", offset: -64 << 10, align: 64 << 10, magic: "\xfc\x4e\x2b\xa9"},
	{name: "Linux RAID 0.90 member", offset: -64 << 10, align: 64 << 10, magic: "\xa9\x2b\x4e\xfc"}, // of a big-endian machine
	{name: "Linux RAID 1.0 member", offset: -8 << 10, align: 4 << 10, magic: "\xfc\x4e\x2b\xa9"},
	{name: "Linux RAID 1.1 member", offset: 0, magic: "\xfc\x4e\x2b\xa9"},
	{name: "Linux RAID 1.2 member", offset: 4 << 10, magic: "\xfc\x4e\x2b\xa9"},
	{name: "Intel RAID member", offset: -1024, align: 512, magic: "Intel Raid ISM Cfg Sig. "},
	{name: "DDF RAID member", offset: -512, align: 512, magic: "\xde\x11\xde\x11"},

	// Encryption.
	{name: "LUKS1 volume", offset: 0, magic: "LUKS\xba\xbe\x00\x01"},
	{name: "LUKS2 volume", offset: 0, magic: "LUKS\xba\xbe\x00\x02"},
	{name: "LUKS2 second header", offset: 0x4000, magic: "SKUL\xba\xbe\x00\x02"},
	{name: "LUKS2 second header", offset: 0x8000, magic: "SKUL\xba\xbe\x00\x02"},
	{name: "LUKS2 second header", offset: 0x10000, magic: "SKUL\xba\xbe\x00\x02"},
	{name: "LUKS2 second header", offset: 0x20000, magic: "SKUL\xba\xbe\x00\x02"},
	{name: "LUKS2 second header", offset: 0x40000, magic: "SKUL\xba\xbe\x00\x02"},
	{name: "LUKS2 second header", offset: 0x80000, magic: "SKUL\xba\xbe\x00\x02"},
	{name: "BitLocker volume", offset: 3, magic: "-FVE-FS-"},

	// Distributed storage.
	{name: "Ceph BlueStore device", offset: 0, magic: "bluestore block device"},
	{name: "DRBD device", offset: -4096 + 60, align: 4096, magic: "\x83\x74\x02\x6b"},
	{name: "DRBD device", offset: -4096 + 60, align: 4096, magic: "\x83\x74\x02\x6c"}, // in use when it stopped
	{name: "DRBD device", offset: -4096 + 60, align: 4096, magic: "\x83\x74\x02\x6d"},

	// Swap: the magic ends the first page, whatever a page is.
	{name: "swap space", offset: 4<<10 - 10, magic: "SWAPSPACE2"},
	{name: "swap space", offset: 16<<10 - 10, magic: "SWAPSPACE2"},
	{name: "swap space", offset: 64<<10 - 10, magic: "SWAPSPACE2"},
	{name: "swap space", offset: 4<<10 - 10, magic: "SWAP-SPACE"},
	{name: "hibernated system", offset: 4<<10 - 10, magic: "S1SUSPEND"},

	// Other file systems.
	{name: "vfat file system", offset: 54, magic: "FAT12   "},
	{name: "vfat file system", offset: 54, magic: "FAT16   "},
	{name: "vfat file system", offset: 82, magic: "FAT32   "},
	{name: "exfat file system", offset: 3, magic: "EXFAT   "},
	{name: "ntfs file system", offset: 3, magic: "NTFS    "},
	{name: "iso9660 file system", offset: 32769, magic: "CD001"},
	{name: "udf file system", offset: 32769, magic: "BEA01"},
	{name: "squashfs file system", offset: 0, magic: "hsqs"},
	{name: "erofs file system", offset: 1024, magic: "\xe2\xe1\xf5\xe0"},
	{name: "reiserfs file system", offset: 64<<10 + 52, magic: "ReIsEr"},
	{name: "reiserfs file system", offset: 8<<10 + 52, magic: "ReIsEr"},
	{name: "jfs file system", offset: 32 << 10, magic: "JFS1"},
	{name: "f2fs file system", offset: 1024, magic: "\x10\x20\xf5\xf2"},
	{name: "gfs2 file system", offset: 64 << 10, magic: "\x01\x16\x19\x70"},
	{name: "ocfs2 file system", offset: 8 << 10, magic: "OCFSV2"},
	{name: "apfs container", offset: 32, magic: "NXSB"},
	{name: "xfs log", offset: 0, magic: "\xfe\xed\xba\xbe"},
}

func littleEndian64(n uint64) string {
	return string(binary.LittleEndian.AppendUint64(nil, n))
}

// zfs looks for an uberblock, of which each of the four labels has a ring
// (include/sys/vdev_impl.h of OpenZFS). Two labels are at each side.
func (e edges) zfs() []Signature {
	const label, ring = 256 << 10, 128 << 10 // the ring is the second half of the label
	end := e.size - e.size%label
	for _, start := range []int64{0, label, end - 2*label, end - label} {
		for at := start + ring; at < start+label; at += 1024 {
			if e.has(littleEndian64(0x00bab10c), at) || e.has("\x00\x00\x00\x00\x00\xba\xb1\x0c", at) {
				return []Signature{{"ZFS pool member", at}}
			}
		}
	}
	return nil
}

// bootSector looks for what ends with 55 AA: a partition table of MBR, or code to
// boot from. File systems of Microsoft end their first sector with it too, so
// those that were found before explain it.
func (e edges) bootSector(before []Signature) []Signature {
	if !e.has("\x55\xaa", 510) {
		return nil
	}
	for _, s := range before {
		if s.Offset < 510 && s.Offset > 0 {
			return nil
		}
	}
	for entry := 446; entry < 510; entry += 16 {
		if status, kind := e.head[entry], e.head[entry+4]; status&0x7f == 0 && kind != 0 {
			return []Signature{{"MBR partition table", 510}}
		}
	}
	return []Signature{{"boot sector", 510}}
}
