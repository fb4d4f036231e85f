package thinmeta

import "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"

// A spaceMap tells how often blocks are referred to, up to three: two bits for
// each block (persistent-data/dm-space-map-common.h).
type spaceMap struct {
	total   uint64
	bitmaps [][]byte // each of perBitmap blocks
}

const (
	bitmapHeader = 16
	perBitmap    = uint64(blockSize-bitmapHeader) * 4
	entrySize    = 16 // of an index: block of the bitmap, number of free blocks, a hint
)

// single reports whether block is referred to exactly once.
func (s spaceMap) single(block uint64) bool { return block < s.total && s.count(block) == 1 }

// count returns how often block is referred to; 3 says three times or more. Of
// the two bits of an entry the lower one is the higher in value
// (persistent-data/dm-space-map-common.c: sm_lookup_bitmap).
func (s spaceMap) count(block uint64) int {
	i := block % perBitmap
	bits := s.bitmaps[block/perBitmap][bitmapHeader+i/4] >> (i % 4 * 2)
	return int(bits&1<<1 | bits>>1&1)
}

// metadataSpaceMap reads the counts of metadata blocks. Their index is a single
// block.
func (now *moment) metadataSpaceMap() (s spaceMap, err error) {
	index, err := now.block(now.super.metadataMap, indexKind)
	if err != nil {
		return s, err
	}
	s.total = now.super.Metadata.Total
	for i := range bitmapsFor(s.total) {
		if err := s.add(&now.visit, link{now.super.metadataMap.to, le.Uint64(index[bitmapHeader+i*entrySize:])}); err != nil {
			return s, err
		}
	}
	return s, nil
}

// dataSpaceMap reads the counts of data blocks. Their index is a tree.
func (now *moment) dataSpaceMap() (s spaceMap, err error) {
	s.total = now.super.Data.Total
	want := bitmapsFor(s.total)
	root := now.super.dataMap
	err = now.indexTree(want).each(root, func(i, bitmap uint64) error {
		if i != uint64(len(s.bitmaps)) {
			return nil // one is missing, and so the last will be
		}
		return s.add(&now.visit, link{root.to, bitmap})
	})
	if have := uint64(len(s.bitmaps)); err == nil && have < want {
		err = corrupt(root.to, "no bitmap for data blocks from %d on", have*perBitmap)
	}
	return s, err
}

func (now *moment) indexTree(bitmaps uint64) tree[uint64] {
	return tree[uint64]{visit: &now.visit, valueSize: entrySize, limit: bitmaps, decode: decodeBlock}
}

func bitmapsFor(blocks uint64) uint64 { return (blocks + perBitmap - 1) / perBitmap }

func (s *spaceMap) add(v *visit, bitmap link) error {
	b, err := v.block(bitmap, bitmapKind)
	if err == nil {
		s.bitmaps = append(s.bitmaps, b)
	}
	return err
}

// spaceMapUsage and spaceMapRoot read what a superblock has of a space map
// (persistent-data/dm-space-map-common.h: struct disk_sm_root).
func spaceMapUsage(b []byte) devmapper.Usage {
	return devmapper.Usage{Total: le.Uint64(b), Used: le.Uint64(b[8:])}
}

func spaceMapRoot(b []byte) uint64 { return le.Uint64(b[16:]) }
