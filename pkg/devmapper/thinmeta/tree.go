package thinmeta

// A tree is one of the metadata's B+trees: keys, in order, with values of type V.
type tree[V any] struct {
	*visit
	valueSize int
	limit     uint64 // all keys are below it
	decode    func([]byte) (V, error)
}

// decodeBlock reads the value of trees that lead to blocks.
func decodeBlock(b []byte) (uint64, error) { return le.Uint64(b), nil }

// maxDepth bounds the way down, as a damaged tree may lead in a circle. Nodes of
// the kernel have 84 entries or more, so 2^40 of them are 7 deep.
const maxDepth = 16

// A part of a tree is a subtree that was not read yet, or a single entry.
type part[V any] struct {
	span       // in which its keys lie; of an entry, the key and the next
	root  link // to the subtree's root; of an entry, to the leaf
	depth int  // how many nodes lead to it, itself included
	entry bool
	value V
}

// whole returns the part that is all of the tree with that root.
func (t tree[V]) whole(root link) part[V] {
	return part[V]{span: span{0, t.limit}, root: root, depth: 1}
}

// read reads the root of a subtree.
func (t tree[V]) read(p part[V]) (node, error) {
	block := p.root.to
	if p.depth > maxDepth {
		return node{}, corrupt(block, "tree is more than %d nodes deep", maxDepth)
	}
	b, err := t.block(p.root, nodeKind)
	if err != nil {
		return node{}, err
	}
	n, err := parseNode(block, b, t.valueSize)
	if err != nil {
		return node{}, err
	}
	if n.entries == 0 && !(n.leaf && p.depth == 1) {
		return node{}, corrupt(block, "node is empty, and not its whole tree")
	}
	return n, n.checkKeys(block, p.span)
}

// part returns the i-th part of p, whose root is n.
func (t tree[V]) part(p part[V], n *node, i int) (part[V], error) {
	sub := part[V]{span: span{n.key(i), p.hi}, root: p.root, depth: p.depth, entry: n.leaf}
	if n.leaf {
		sub.hi = sub.lo + 1
		value, err := t.decode(n.value(i))
		if err != nil {
			return sub, corrupt(p.root.to, "entry %d: %v", sub.lo, err)
		}
		sub.value = value
		return sub, nil
	}
	if i+1 < n.entries {
		sub.hi = n.key(i + 1)
	}
	sub.root, sub.depth = link{p.root.to, n.child(i)}, p.depth+1
	return sub, nil
}

// floor finds the entry at key or, if key lies beyond all entries, the last one;
// of keys in between it is an entry below, or none. path are the nodes that lead
// there.
func (t tree[V]) floor(root link, key uint64) (p part[V], path []uint64, found bool, err error) {
	p = t.whole(root)
	for !p.entry {
		n, err := t.read(p)
		if err != nil {
			return p, path, false, err
		}
		path = append(path, p.root.to)
		i := n.find(key)
		if i < 0 {
			return p, path, false, nil
		}
		if p, err = t.part(p, &n, i); err != nil {
			return p, path, false, err
		}
	}
	return p, path, true, nil
}

// lookup finds the value of a key.
func (t tree[V]) lookup(root link, key uint64) (value V, found bool, err error) {
	p, _, found, err := t.floor(root, key)
	return p.value, found && p.lo == key, err
}

// each calls do for each entry, in order.
func (t tree[V]) each(root link, do func(key uint64, value V) error) error {
	for c := t.cursor(root); !c.done(); {
		p := c.next()
		var err error
		if p.entry {
			c.pop()
			err = do(p.lo, p.value)
		} else {
			err = c.expand()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A cursor goes through a tree in order, and down only where it is told to.
type cursor[V any] struct {
	tree[V]
	rest []part[V] // the next one last
}

func (t tree[V]) cursor(root link) *cursor[V] {
	return &cursor[V]{tree: t, rest: []part[V]{t.whole(root)}}
}

func (c *cursor[V]) done() bool { return len(c.rest) == 0 }

// next returns the part that is next in order.
func (c *cursor[V]) next() part[V] { return c.rest[len(c.rest)-1] }

// pop leaves the next part behind.
func (c *cursor[V]) pop() { c.rest = c.rest[:len(c.rest)-1] }

// expand puts the parts of the next part, a subtree, in its place.
func (c *cursor[V]) expand() error {
	p := c.next()
	n, err := c.read(p)
	if err != nil {
		return err
	}
	c.pop()
	for i := n.entries - 1; i >= 0; i-- {
		sub, err := c.part(p, &n, i)
		if err != nil {
			return err
		}
		c.rest = append(c.rest, sub)
	}
	return nil
}
