package csi

import (
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
)

// A sizeRange is what a volume may have, in bytes.
type sizeRange struct {
	least int64 // 0: any
	most  int64 // 0: any
}

func parseRange(r *csi.CapacityRange) (sizeRange, error) {
	size := sizeRange{r.GetRequiredBytes(), r.GetLimitBytes()}
	switch {
	case size.least < 0 || size.most < 0:
		return size, fmt.Errorf("%w: a capacity below 0", errInvalid)
	case size.most != 0 && size.least > size.most:
		return size, fmt.Errorf("%w: required_bytes %d is more than limit_bytes %d", errInvalid, size.least, size.most)
	case size.least > largestSize:
		return size, fmt.Errorf("%w: required_bytes %d: no volume has more than %d", errOutOfRange, size.least, int64(largestSize))
	}
	return size, nil
}

// largestSize is that of a device. It keeps the rounding up of sizes within 63 bits.
const largestSize = 1 << 60

// has reports whether a size is within r.
func (r sizeRange) has(size int64) bool {
	return size >= r.least && (r.most == 0 || size <= r.most)
}

// pick returns the size of a new volume: what is required, in whole blocks, and what
// suits the volume if nothing is.
func (r sizeRange) pick(suits, least, block int64) (int64, error) {
	size := max(r.least, least)
	if r.least == 0 {
		size = max(suits, least)
		if r.most != 0 {
			size = min(size, max(r.most/block*block, least))
		}
	}
	size = (size + block - 1) / block * block
	if !r.has(size) {
		return 0, fmt.Errorf("%w: limit_bytes %d: want %d at least, in blocks of %d bytes", errOutOfRange, r.most, size, block)
	}
	return size, nil
}

// defaultSize is that of a volume for which nobody asked for one.
const defaultSize = 1 << 30
