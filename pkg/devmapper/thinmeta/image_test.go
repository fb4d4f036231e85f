package thinmeta

import (
	"bytes"
	"slices"
)

// An image is metadata in memory.
type image struct {
	blocks [][]byte
	counts map[uint64]int // of references to metadata blocks
	data   map[uint64]int // of references to data blocks
}

// number gives the nodes of a tree their places.
func (m *model) number(n *modelNode) {
	if _, ok := m.numbers[n]; !ok {
		m.numbers[n] = uint64(len(m.numbers)) + 1
	}
	for _, kid := range n.kids {
		m.number(kid)
	}
}

// image writes the pool's metadata: the superblock, the nodes of all trees of
// mappings that there ever were, and then what has a new place each time.
func (m *model) image() *image {
	im := &image{counts: map[uint64]int{0: 1}, data: map[uint64]int{}}
	for _, id := range m.ids() {
		m.number(m.devices[id].tree)
	}
	for range len(m.numbers) + 1 {
		im.blocks = append(im.blocks, make([]byte, blockSize))
	}
	var roots, details []entry
	for _, id := range m.ids() {
		d := m.devices[id]
		roots = append(roots, entry{uint64(id), m.writeTree(im, d.tree)})
		details = append(details, entry{uint64(id), encodeDetails(d.details)})
	}
	sb := im.blocks[0]
	le.PutUint64(sb[offMagic:], magic)
	le.PutUint32(sb[offVersion:], version)
	le.PutUint32(sb[offTime:], m.time)
	le.PutUint32(sb[offDataBlock:], 128)
	le.PutUint32(sb[offMetadataBlock:], 8)
	le.PutUint64(sb[offMappings:], im.list(roots, 8))
	le.PutUint64(sb[offDetails:], im.list(details, 24))
	im.dataMap(sb[offDataMap:], m.dataTotal)
	im.metadataMap(sb[offMetadataMap:])
	im.seal(0, superblockKind)
	return im
}

func encodeDetails(d Device) []byte {
	b := le.AppendUint64(nil, uint64(d.Mapped))
	b = le.AppendUint64(b, d.TransactionID)
	b = le.AppendUint32(b, d.Created)
	return le.AppendUint32(b, d.Snapshotted)
}

func (im *image) add(b []byte) uint64 {
	im.blocks = append(im.blocks, b)
	im.counts[uint64(len(im.blocks)-1)]++
	return uint64(len(im.blocks) - 1)
}

// seal gives a block its number and checksum.
func (im *image) seal(n uint64, k kind) {
	le.PutUint64(im.blocks[n][offNumber:], n)
	le.PutUint32(im.blocks[n], checksum(im.blocks[n])^k.xor)
}

type entry struct {
	key   uint64
	value []byte
}

// node adds a node with room for most entries.
func (im *image) node(flags uint32, entries []entry, most, valueSize int) uint64 {
	n := im.add(make([]byte, blockSize))
	im.nodeAt(n, flags, entries, most, valueSize)
	return n
}

func (im *image) nodeAt(n uint64, flags uint32, entries []entry, most, valueSize int) {
	b := im.blocks[n]
	le.PutUint32(b[offFlags:], flags)
	le.PutUint32(b[offEntries:], uint32(len(entries)))
	le.PutUint32(b[offMaxEntries:], uint32(most))
	le.PutUint32(b[offValueSize:], uint32(valueSize))
	for i, e := range entries {
		le.PutUint64(b[offKeys+i*keySize:], e.key)
		copy(b[offKeys+most*keySize+i*valueSize:], e.value)
	}
	im.seal(n, nodeKind)
}

// writeTree writes a tree of mappings, a node that others have too only once.
func (m *model) writeTree(im *image, n *modelNode) (root []byte) {
	at := m.numbers[n]
	root = le.AppendUint64(nil, at)
	if im.counts[at]++; im.counts[at] > 1 {
		return root
	}
	flags := uint32(leafNode)
	var entries []entry
	for i, data := range n.values {
		im.data[data]++
		entries = append(entries, entry{n.keys[i], le.AppendUint64(nil, data<<timeBits)})
	}
	for i, kid := range n.kids {
		flags = internalNode
		entries = append(entries, entry{n.keys[i], m.writeTree(im, kid)})
	}
	im.nodeAt(at, flags, entries, m.most, 8)
	return root
}

// list writes a tree of full nodes.
func (im *image) list(entries []entry, valueSize int) uint64 {
	const most = 6
	flags := uint32(leafNode)
	for {
		var above []entry
		for chunk := range slices.Chunk(entries, most) {
			n := im.node(flags, chunk, most, valueSize)
			above = append(above, entry{chunk[0].key, le.AppendUint64(nil, n)})
		}
		switch len(above) {
		case 0:
			return im.node(leafNode, nil, most, valueSize)
		case 1:
			return le.Uint64(above[0].value)
		}
		flags, entries, valueSize = internalNode, above, pointerSize
	}
}

// bitmaps writes counts of references and calls each with every bitmap.
func (im *image) bitmaps(total uint64, counts map[uint64]int, each func(i, bitmap uint64)) {
	first := uint64(len(im.blocks))
	for i := range bitmapsFor(total) {
		each(i, im.add(make([]byte, blockSize)))
	}
	for block, count := range counts {
		count, i := min(count, 3), block%perBitmap
		im.blocks[first+block/perBitmap][bitmapHeader+i/4] |= byte(count>>1|count&1<<1) << (i % 4 * 2)
	}
	for i := range bitmapsFor(total) {
		im.seal(first+i, bitmapKind)
	}
}

func (im *image) dataMap(root []byte, total uint64) {
	var index []entry
	im.bitmaps(total, im.data, func(i, bitmap uint64) {
		index = append(index, entry{i, le.AppendUint64(le.AppendUint64(nil, bitmap), 0)})
	})
	le.PutUint64(root, total)
	le.PutUint64(root[8:], uint64(len(im.data)))
	le.PutUint64(root[16:], im.list(index, entrySize))
}

// metadataMap comes last, as it counts all blocks, its own among them.
func (im *image) metadataMap(root []byte) {
	index := make([]byte, blockSize)
	at := im.add(index)
	used := uint64(len(im.blocks)) + 1
	im.counts[used-1] = 1
	total := used + 10
	im.bitmaps(total, im.counts, func(i, bitmap uint64) {
		le.PutUint64(index[bitmapHeader+int(i)*entrySize:], bitmap)
	})
	im.seal(at, indexKind)
	le.PutUint64(root, total)
	le.PutUint64(root[8:], used)
	le.PutUint64(root[16:], at)
}

func (im *image) bytes() []byte { return slices.Concat(im.blocks...) }

// open opens an image; what is written to it later is seen.
func openImage(b []byte) *Metadata {
	s, err := newSource(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return &Metadata{source: s, path: "image"}
}
