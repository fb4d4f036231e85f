package thinmeta

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A model is a pool in memory whose metadata can be written down. Its trees are
// like the kernel's: never changed in place, so that snapshots share nodes, but
// with nodes that are small, and split and merge at random.
type model struct {
	*rand.Rand
	most      int // entries of a node in the trees of mappings
	time      uint32
	dataTotal uint64
	nextData  uint64
	devices   map[devmapper.DeviceID]*modelDevice
	numbers   map[*modelNode]uint64 // where nodes lie, for good
}

type modelDevice struct {
	details Device
	tree    *modelNode
	blocks  map[uint64]uint64 // the same once more, plainly
}

// A modelNode is a leaf if it has values, which are data blocks, and no kids.
type modelNode struct {
	keys   []uint64
	values []uint64
	kids   []*modelNode
}

func newModel(seed uint64) *model {
	random := rand.New(rand.NewPCG(seed, 0))
	return &model{
		Rand:      random,
		most:      3 + random.IntN(6),
		dataTotal: 40_000,
		devices:   map[devmapper.DeviceID]*modelDevice{},
		numbers:   map[*modelNode]uint64{},
	}
}

func (m *model) ids() []devmapper.DeviceID { return slices.Sorted(maps.Keys(m.devices)) }

func (m *model) create(id devmapper.DeviceID) {
	m.devices[id] = &modelDevice{
		details: Device{ID: id, Created: m.time, Snapshotted: m.time},
		tree:    &modelNode{},
		blocks:  map[uint64]uint64{},
	}
}

func (m *model) snapshot(id, origin devmapper.DeviceID) {
	m.time++
	o := m.devices[origin]
	o.details.Snapshotted = m.time
	m.devices[id] = &modelDevice{
		details: Device{ID: id, Mapped: o.details.Mapped, Created: m.time, Snapshotted: m.time},
		tree:    o.tree,
		blocks:  maps.Clone(o.blocks),
	}
}

// write maps a block to data that nothing else has.
func (m *model) write(id devmapper.DeviceID, block uint64) {
	d := m.devices[id]
	d.blocks[block] = m.nextData
	d.tree = m.root(m.set(d.tree, block, m.nextData))
	d.details.Mapped = Blocks(len(d.blocks))
	m.nextData++
}

func (m *model) discard(id devmapper.DeviceID, block uint64) {
	d := m.devices[id]
	delete(d.blocks, block)
	d.tree = m.root(m.remove(d.tree, block))
	d.details.Mapped = Blocks(len(d.blocks))
}

// root makes one node of what a change has left of a root.
func (m *model) root(nodes []*modelNode) *modelNode {
	switch len(nodes) {
	case 0:
		return &modelNode{}
	case 1:
		n := nodes[0]
		for len(n.kids) == 1 && m.IntN(2) == 0 {
			n = n.kids[0]
		}
		return n
	}
	n := &modelNode{kids: nodes}
	for _, kid := range nodes {
		n.keys = append(n.keys, kid.keys[0])
	}
	return n
}

func (n *modelNode) clone() *modelNode {
	return &modelNode{slices.Clone(n.keys), slices.Clone(n.values), slices.Clone(n.kids)}
}

func (n *modelNode) isLeaf() bool { return n.kids == nil }

// at returns where in n key is or would be: the subtree for it, or the entry.
func (n *modelNode) at(key uint64) (int, bool) {
	i, found := slices.BinarySearch(n.keys, key)
	if n.isLeaf() {
		return i, found
	}
	if !found {
		i--
	}
	return max(i, 0), true
}

func (m *model) set(n *modelNode, key, value uint64) []*modelNode {
	n = n.clone()
	i, found := n.at(key)
	switch {
	case !n.isLeaf():
		n.keys[i] = min(n.keys[i], key)
		n.replace(i, m.set(n.kids[i], key, value))
	case found:
		n.values[i] = value
	default:
		n.keys = slices.Insert(n.keys, i, key)
		n.values = slices.Insert(n.values, i, value)
	}
	return m.split(n)
}

func (m *model) remove(n *modelNode, key uint64) []*modelNode {
	i, found := n.at(key)
	if !found {
		return []*modelNode{n}
	}
	n = n.clone()
	if n.isLeaf() {
		n.keys, n.values = slices.Delete(n.keys, i, i+1), slices.Delete(n.values, i, i+1)
	} else {
		n.replace(i, m.remove(n.kids[i], key))
		m.merge(n)
	}
	if len(n.keys) == 0 {
		return nil
	}
	return []*modelNode{n}
}

// replace puts what a change has left of the i-th kid in its place. The first
// keeps its key in n even if it now begins later, as in the kernel's trees.
func (n *modelNode) replace(i int, kids []*modelNode) {
	keys := []uint64{n.keys[i]}[:min(1, len(kids))]
	for _, kid := range kids[min(1, len(kids)):] {
		keys = append(keys, kid.keys[0])
	}
	n.keys = slices.Replace(n.keys, i, i+1, keys...)
	n.kids = slices.Replace(n.kids, i, i+1, kids...)
}

// split divides a node that is too large, anywhere.
func (m *model) split(n *modelNode) []*modelNode {
	if len(n.keys) <= m.most {
		return []*modelNode{n}
	}
	at := 1 + m.IntN(len(n.keys)-1)
	left, right := &modelNode{keys: n.keys[:at:at]}, &modelNode{keys: n.keys[at:]}
	if n.isLeaf() {
		left.values, right.values = n.values[:at:at], n.values[at:]
	} else {
		left.kids, right.kids = n.kids[:at:at], n.kids[at:]
	}
	return []*modelNode{left, right}
}

// merge joins, now and then, two neighbours that fit into one node.
func (m *model) merge(n *modelNode) {
	if len(n.kids) < 2 || m.IntN(2) == 0 {
		return
	}
	i := m.IntN(len(n.kids) - 1)
	left, right := n.kids[i], n.kids[i+1]
	if len(left.keys)+len(right.keys) > m.most || left.isLeaf() != right.isLeaf() {
		return
	}
	joined := left.clone()
	joined.keys = append(joined.keys, right.keys...)
	joined.values = append(joined.values, right.values...)
	joined.kids = append(joined.kids, right.kids...)
	n.kids = slices.Replace(n.kids, i, i+2, joined)
	n.keys = slices.Delete(n.keys, i+1, i+2)
}

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
