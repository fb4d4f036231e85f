package thinmeta

import (
	"math"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A Change is how a block of one device became that of another.
type Change int

// The changes.
const (
	Rewritten Change = iota // both map it, to different data
	Added                   // only the second maps it
	Removed                 // only the first maps it
)

// A Difference is a range in which two devices differ in one way.
type Difference struct {
	Range
	Change Change
}

// Delta returns what makes device to differ from device from, in order. Blocks
// with the same data block are equal. Blocks with different ones are reported as
// rewritten, though the same may have been written to both.
//
// For two snapshots of one device it reads only nodes that they do not share: a
// few for each place in which they differ, whatever their size.
func (m *Metadata) Delta(from, to devmapper.DeviceID) ([]Difference, error) {
	ids := []devmapper.DeviceID{from, to}
	differences, err := inTrees(m, ids, nil, func(t *trees) ([]Difference, error) {
		c := comparison{from: t.mappings().cursor(t.devices[0].root), to: t.mappings().cursor(t.devices[1].root)}
		for !c.from.done() || !c.to.done() {
			if err := c.step(); err != nil {
				return nil, err
			}
		}
		return c.differences, nil
	})
	return differences, m.failed(err, "delta from device %d to %d", from, to)
}

// A comparison goes through two trees side by side. What is next in one is a
// subtree or an entry, and all that came before it has been compared.
type comparison struct {
	from, to    *cursor[target]
	differences []Difference
}

// step leaves something behind, or reads a node to see more.
func (c *comparison) step() error {
	a, b := nextOrEnd(c.from), nextOrEnd(c.to)
	switch {
	case !a.entry && !b.entry && a.root.to == b.root.to:
		// One node in both trees: whatever lies below it is equal, and unread.
		c.from.pop()
		c.to.pop()
	case a.hi <= b.lo:
		return c.only(c.from, a, Removed)
	case b.hi <= a.lo:
		return c.only(c.to, b, Added)
	case a.entry && b.entry:
		if a.value.block != b.value.block {
			c.append(a.lo, Rewritten)
		}
		c.from.pop()
		c.to.pop()
	case b.entry || !a.entry && before(a.span, b.span):
		return c.from.expand()
	default:
		return c.to.expand()
	}
	return nil
}

// nextOrEnd returns a part behind all keys when there is no more.
func nextOrEnd(c *cursor[target]) part[target] {
	if c.done() {
		return part[target]{span: span{math.MaxUint64, math.MaxUint64}, entry: true}
	}
	return c.next()
}

// before reports whether a is to be read first: the one that begins first, or
// else the larger, whose parts may turn out to be the other one.
func before(a, b span) bool {
	return a.lo < b.lo || a.lo == b.lo && a.hi >= b.hi
}

// only deals with p, the next part of one tree, of which the other has nothing.
func (c *comparison) only(side *cursor[target], p part[target], change Change) error {
	if !p.entry {
		return side.expand()
	}
	c.append(p.lo, change)
	side.pop()
	return nil
}

func (c *comparison) append(block uint64, change Change) {
	if last := len(c.differences) - 1; last >= 0 {
		if d := &c.differences[last]; d.Change == change && d.End() == Blocks(block) {
			d.Length++
			return
		}
	}
	c.differences = append(c.differences, Difference{Range{Blocks(block), 1}, change})
}
