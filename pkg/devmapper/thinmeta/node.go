package thinmeta

import "sort"

// A node is a block of a tree (persistent-data/dm-btree-internal.h: struct
// btree_node): a header, room for max keys, room for max values.
type node struct {
	leaf    bool
	entries int
	keys    []byte
	values  []byte
	size    int // of a value
}

// Offsets in a node.
const (
	offEntries    = 16
	offMaxEntries = 20
	offValueSize  = 24
	offKeys       = 32
)

// Flags of a node.
const (
	internalNode = 1
	leafNode     = 2
)

const keySize, pointerSize = 8, 8

// parseNode reads block n as a node of a tree whose leaves have values of
// valueSize bytes.
func parseNode(n uint64, b []byte, valueSize int) (node, error) {
	flags := le.Uint32(b[offFlags:])
	if flags != internalNode && flags != leafNode {
		return node{}, corrupt(n, "node has flags %#x", flags)
	}
	leaf := flags == leafNode
	if !leaf {
		valueSize = pointerSize
	}
	if have := le.Uint32(b[offValueSize:]); have != uint32(valueSize) {
		return node{}, corrupt(n, "node has values of %d bytes, want %d", have, valueSize)
	}
	entries, most := le.Uint32(b[offEntries:]), le.Uint32(b[offMaxEntries:])
	if room := uint32(blockSize-offKeys) / uint32(keySize+valueSize); most > room || entries > most {
		return node{}, corrupt(n, "node has %d of %d entries, where %d fit", entries, most, room)
	}
	keys := b[offKeys:]
	values := keys[int(most)*keySize:]
	return node{leaf, int(entries), keys, values, valueSize}, nil
}

func (n *node) key(i int) uint64   { return le.Uint64(n.keys[i*keySize:]) }
func (n *node) value(i int) []byte { return n.values[i*n.size:][:n.size] }
func (n *node) child(i int) uint64 { return le.Uint64(n.value(i)) }

// find returns the last entry whose key is not above key, or -1.
func (n *node) find(key uint64) int {
	return sort.Search(n.entries, func(i int) bool { return n.key(i) > key }) - 1
}

// checkKeys reports what keeps the keys of node n from rising within a span.
func (n *node) checkKeys(block uint64, within span) error {
	for i := range n.entries {
		key := n.key(i)
		if key < within.lo || key >= within.hi {
			return corrupt(block, "key %d lies outside its subtree's %d to %d", key, within.lo, within.hi-1)
		}
		if i > 0 && key <= n.key(i-1) {
			return corrupt(block, "key %d follows key %d", key, n.key(i-1))
		}
	}
	return nil
}

// A span of keys, hi excluded.
type span struct{ lo, hi uint64 }
