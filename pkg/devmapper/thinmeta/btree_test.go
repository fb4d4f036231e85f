package thinmeta

import (
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
