package devmapper

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SectorSize is the length of one sector in bytes, whatever the disk below says
// of itself (include/linux/blk_types.h: SECTOR_SIZE).
const SectorSize = 512

// Sectors counts 512-byte sectors, the only length a device-mapper table knows.
type Sectors uint64

// Bytes returns s in bytes.
func (s Sectors) Bytes() int64 { return int64(s) * SectorSize }

// SectorsIn returns how many whole sectors fit into a length in bytes; a
// negative length holds none.
func SectorsIn(bytes int64) Sectors { return Sectors(max(bytes, 0)) / SectorSize }

// MaxDeviceID is the largest id a thin device may have: 24 bits
// (drivers/md/dm-thin.c: MAX_DEV_ID).
const MaxDeviceID DeviceID = 1<<24 - 1

// A DeviceID names a thin device inside its pool. The caller chooses it; the
// pool neither hands out ids nor forgets one before it is deleted.
type DeviceID uint32

// A DevNo is a block device's number as the kernel packs it into a dev_t.
type DevNo uint64

// MakeDevNo packs a major and a minor number.
func MakeDevNo(major, minor uint32) DevNo { return DevNo(unix.Mkdev(major, minor)) }

// Major returns the number of the driver that serves the device.
func (d DevNo) Major() uint32 { return unix.Major(uint64(d)) }

// Minor returns the number of the device at its driver.
func (d DevNo) Minor() uint32 { return unix.Minor(uint64(d)) }

// String prints d as tables and status lines do: <major>:<minor>.
func (d DevNo) String() string { return fmt.Sprintf("%d:%d", d.Major(), d.Minor()) }

// ParseDevNo reads what String prints.
func ParseDevNo(s string) (DevNo, error) {
	major, minor, ok := strings.Cut(s, ":")
	if ok {
		ma, err1 := strconv.ParseUint(major, 10, 12)
		mi, err2 := strconv.ParseUint(minor, 10, 20)
		if err1 == nil && err2 == nil {
			return MakeDevNo(uint32(ma), uint32(mi)), nil
		}
	}
	return 0, fmt.Errorf("device number %q: want <major>:<minor>", s)
}
