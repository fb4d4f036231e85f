package deviceset

import (
	"fmt"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// How large things are, where nobody says.
const (
	kib = int64(1) << 10
	mib = kib << 10
	gib = mib << 10

	smallestBlock = dm.Sectors(128 * kib / dm.SectorSize)
	mostBlocks    = 1 << 25 // of a pool's data device

	smallestMetadata     = 64 * mib
	smallestLoopMetadata = 16 * mib // that may be asked for
	metadataPart         = 100      // one byte of metadata for so many of data

	smallestLabel = 8 * mib
	largestLabel  = 64 * mib
	labelPart     = 64

	// heldBackPart is the part of the metadata that the pool is not given before it
	// runs short: growth alone makes deletes possible again
	// (drivers/md/dm-thin.c: a pool out of metadata refuses all messages).
	heldBackPart = 10
)

// blockSizeFor returns the smallest block size that keeps a data device below so
// many blocks that a delete of all of them takes a minute.
func blockSizeFor(dataSize int64) dm.Sectors {
	size := smallestBlock
	for dataSize/size.Bytes() > mostBlocks && size < dm.MaxBlockSize {
		size *= 2
	}
	return size
}

// metadataSizeFor returns how much metadata a pool is made with: scattered writes
// after snapshots take 45 to 80 times what the kernel's rule gives
// (Documentation/admin-guide/device-mapper/thin-provisioning.rst).
func metadataSizeFor(dataSize int64) int64 {
	return min(max(roundUp(dataSize/metadataPart, mib), smallestMetadata), maxMetadata())
}

func maxMetadata() int64 { return dm.MaxMetadataSize.Bytes() }

// labelSizeFor returns the size of thin device 0, in bytes: two slots.
func labelSizeFor(dataSize int64, blockSize dm.Sectors) int64 {
	size := min(max(dataSize/labelPart, smallestLabel), largestLabel)
	return roundUp(size, max(2*blockSize.Bytes(), mib))
}

// givenOf returns how much of a metadata device a new pool is given.
func givenOf(metadataSize int64) dm.Sectors {
	size := dm.SectorsIn(min(metadataSize, maxMetadata()))
	return (size - size/heldBackPart) / dm.MetadataBlockSize * dm.MetadataBlockSize
}

// allOf returns how much of a metadata device a pool can use.
func allOf(metadataSize int64) dm.Sectors {
	return dm.SectorsIn(min(metadataSize, maxMetadata())) / dm.MetadataBlockSize * dm.MetadataBlockSize
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// wholeBlocks rounds a size up: the tail of a device that ends within a block
// cannot be discarded.
func (s *DeviceSet) wholeBlocks(size int64) (int64, error) {
	block := s.pool.blockSize.Bytes()
	if size <= 0 || size > maxDeviceSize {
		return 0, fmt.Errorf("%w: a device of %d bytes: want 1 to %d", ErrInvalid, size, maxDeviceSize)
	}
	return roundUp(size, block), nil
}

// BlockSize returns the size of the pool's blocks, in bytes. Devices have whole ones.
func (s *DeviceSet) BlockSize() int64 { return s.pool.blockSize.Bytes() }

// maxDeviceSize keeps all arithmetic on sizes within 63 bits.
const maxDeviceSize = int64(1) << 60
