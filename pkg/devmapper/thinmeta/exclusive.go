package thinmeta

import (
	"slices"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Exclusive returns the blocks of a device whose data no other device maps: what
// its deletion frees, and so how long the pool stands still for it. It reads the
// device's own nodes, none that it shares, and the pool's whole space maps, a
// block for each 16320 blocks of data.
//
// The pool may be busy, and so may devices that share with this one, but this one
// must be inactive, as it is before its deletion: blocks are counted first, and
// then its tree is read, which must not become another in between.
func (m *Metadata) Exclusive(id devmapper.DeviceID) ([]Range, error) {
	var c counts
	prepare := func(now *moment) (err error) {
		c, err = now.counts()
		return err
	}
	ranges, err := inTrees(m, []devmapper.DeviceID{id}, prepare, func(t *trees) ([]Range, error) {
		return t.exclusive(t.devices[0], c)
	})
	return ranges, m.failed(err, "exclusive blocks of device %d", id)
}

// exclusive goes down where nodes have one parent. A shared node counts once for
// the data below it, so below it data that has a count of one is shared too.
func (t *trees) exclusive(d rooted, counts counts) (ranges []Range, err error) {
	if slices.ContainsFunc(d.path, func(node uint64) bool { return !counts.metadata.single(node) }) {
		return nil, nil // all is shared with the held metadata snapshot
	}
	for c := t.mappings().cursor(d.root); !c.done(); {
		p := c.next()
		switch {
		case p.entry:
			if counts.data.single(p.value.block) {
				ranges = appendBlock(ranges, p.lo)
			}
			c.pop()
		case counts.metadata.single(p.root.to):
			if err := c.expand(); err != nil {
				return nil, err
			}
		default:
			c.pop()
		}
	}
	return ranges, nil
}

// counts tell how often blocks are referred to.
type counts struct{ metadata, data spaceMap }

func (now *moment) counts() (c counts, err error) {
	if c.metadata, err = now.metadataSpaceMap(); err != nil {
		return c, err
	}
	c.data, err = now.dataSpaceMap()
	return c, err
}
