package thinmeta

import "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"

// Blocks counts blocks of the pool's block size, on a thin device or on the data
// device.
type Blocks uint64

// Sectors returns b in sectors, for a pool with blocks of that size.
func (b Blocks) Sectors(blockSize devmapper.Sectors) devmapper.Sectors {
	return devmapper.Sectors(b) * blockSize
}

// A Range is Length blocks of a thin device, from Begin on.
type Range struct{ Begin, Length Blocks }

// End returns the first block behind r.
func (r Range) End() Blocks { return r.Begin + r.Length }

// Sum returns the number of blocks in ranges.
func Sum(ranges []Range) (blocks Blocks) {
	for _, r := range ranges {
		blocks += r.Length
	}
	return blocks
}

// appendBlock adds a block behind all others.
func appendBlock(ranges []Range, block uint64) []Range {
	if last := len(ranges) - 1; last >= 0 && ranges[last].End() == Blocks(block) {
		ranges[last].Length++
		return ranges
	}
	return append(ranges, Range{Blocks(block), 1})
}

// A Mapping is a range of a thin device that lies in one piece on the data
// device, from block Data on.
type Mapping struct {
	Range
	Data Blocks
}

func appendMapping(mappings []Mapping, block, data uint64) []Mapping {
	if last := len(mappings) - 1; last >= 0 {
		if m := &mappings[last]; m.End() == Blocks(block) && m.Data+m.Length == Blocks(data) {
			m.Length++
			return mappings
		}
	}
	return append(mappings, Mapping{Range{Blocks(block), 1}, Blocks(data)})
}

// Ranges returns what a device maps, in order and with gaps in between. All else
// of it reads as zeros, or as its external origin.
func (m *Metadata) Ranges(id devmapper.DeviceID) ([]Range, error) {
	ranges, err := ask(m, id, func(t *trees, d rooted) (ranges []Range, err error) {
		err = t.each(d, func(block uint64, _ target) { ranges = appendBlock(ranges, block) })
		return ranges, err
	})
	return ranges, m.failed(err, "ranges of device %d", id)
}

// Mappings returns what a device maps and where it lies, in order. There may be
// as many as blocks.
func (m *Metadata) Mappings(id devmapper.DeviceID) ([]Mapping, error) {
	mappings, err := ask(m, id, func(t *trees, d rooted) (mappings []Mapping, err error) {
		err = t.each(d, func(block uint64, to target) { mappings = appendMapping(mappings, block, to.block) })
		return mappings, err
	})
	return mappings, m.failed(err, "mappings of device %d", id)
}

// Extent returns the end of the highest block that a device maps: the device was
// at least that large. It is 0 if nothing is mapped. It reads a handful of nodes,
// whatever the device's size.
func (m *Metadata) Extent(id devmapper.DeviceID) (Blocks, error) {
	extent, err := ask(m, id, func(t *trees, d rooted) (Blocks, error) {
		highest, _, found, err := t.mappings().floor(d.root, t.limits.virtual)
		switch {
		case err != nil:
			return 0, err
		case found != (d.Mapped > 0):
			return 0, corrupt(d.root.to, "device %d has mappings or none, by its details %d", d.ID, d.Mapped)
		case !found:
			return 0, nil
		}
		return Blocks(highest.hi), nil
	})
	return extent, m.failed(err, "extent of device %d", id)
}

// ask answers a question about one device's mappings.
func ask[T any](m *Metadata, id devmapper.DeviceID, question func(*trees, rooted) (T, error)) (T, error) {
	return inTrees(m, []devmapper.DeviceID{id}, nil, func(t *trees) (T, error) {
		return question(t, t.devices[0])
	})
}
