package filesystem

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// extAt returns the bytes of the ext4 on a device, mounted or not, and below how
// many no group is added. Growing ends with what is in its journal written out
// (fs/ext4/ioctl.c, EXT4_IOC_RESIZE_FS), so the device has it.
func extAt(device string) (size, least int64, err error) {
	f, deviceSize, err := openDevice(device)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	head, err := readHead(f, deviceSize)
	if err != nil {
		return 0, 0, err
	}
	info, err := examineExt(head, deviceSize)
	if errors.Is(err, errAbsent) {
		err = errors.New("ext4: no superblock")
	}
	if err != nil {
		return 0, 0, err
	}
	return info.Size, extSuperblock(head[extOffset:]).smallestGroup(deviceSize), nil
}

// smallestGroup returns how many bytes more than its metadata may need the last
// group has at least on a device of size bytes (fs/ext4/resize.c, ext4_resize_fs).
func (s extSuperblock) smallestGroup(size int64) int64 {
	block := s.blockSize()
	groups := size/block/int64(s.u32(extPerGroup)) + 1
	descriptors := (groups*64 + block - 1) / block
	inodes := int64(s.u32(extInodes)) * int64(max(128, s.u16(extInodeSize))) / block
	cluster := int64(1) << (s.u32(extLogCluster) - s.u32(extLogBlockSize))
	return (1 + descriptors + int64(s.u16(extReserved)) + 2 + inodes + cluster + 1) * block
}

// xfsGeometry is struct xfs_fsop_geom_v1 (fs/xfs/libxfs/xfs_fs.h).
type xfsGeometry struct {
	blockSize uint32
	_         [7]uint32
	blocks    uint64
	_         [9]uint64
}

// xfsGetGeometry is XFS_IOC_FSGEOMETRY_V1: _IOR('X', 100, struct xfs_fsop_geom_v1).
const xfsGetGeometry = 2<<30 | unsafe.Sizeof(xfsGeometry{})<<16 | 'X'<<8 | 100

// xfsMinGroup is how many blocks an allocation group has at least
// (fs/xfs/libxfs/xfs_fs.h, XFS_MIN_AG_BLOCKS).
const xfsMinGroup = 64

// xfsAt returns the bytes of the xfs that is mounted at a path, and below how many
// no group is added. Only the kernel knows: half a minute after growing, the
// superblock on the device may be as before.
func xfsAt(path string) (size, least int64, err error) {
	dir, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer dir.Close()
	var g xfsGeometry
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), xfsGetGeometry, uintptr(unsafe.Pointer(&g)))
	if errno != 0 {
		return 0, 0, fmt.Errorf("geometry of xfs: %w", errno)
	}
	block := int64(g.blockSize)
	return int64(g.blocks) * block, xfsMinGroup * block, nil
}
