package dmsim

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// metadata is what a pool knows (drivers/md/dm-thin-metadata.c). It changes in
// place, and undo leads back to what was committed last.
type metadata struct {
	blockSize     dm.Sectors
	time          uint32 // counts snapshots
	transactionID uint64
	needsCheck    bool
	held          bool
	heldBlocks    []uint64 // data blocks that the held snapshot uses
	thins         map[dm.DeviceID]*thinDetails
	refs          map[uint64]int      // how many thins use a data block, and the held snapshot
	freed         map[uint64]struct{} // data blocks that the last commit still uses
	lowest        uint64              // no data block below it is free
	leaves        uint64              // of the thins' mappings, estimated
	dataBlocks    uint64
	blocks        uint64 // of metadata
	undo          []func(*metadata)
}

// thinDetails is what a pool knows of one thin device.
type thinDetails struct {
	born        uint64 // transaction id
	created     uint32
	snapshotted uint32
	mapped      map[uint64]mapping // by virtual block
}

// A mapping tells where a virtual block lies and since when.
type mapping struct {
	block uint64
	time  uint32
}

func newMetadata(blockSize dm.Sectors, blocks uint64) *metadata {
	return &metadata{
		blockSize: blockSize, blocks: blocks,
		thins: map[dm.DeviceID]*thinDetails{}, refs: map[uint64]int{}, freed: map[uint64]struct{}{},
	}
}

// committed returns a copy of m as of its last commit.
func (m *metadata) committed() *metadata {
	c := m.clone()
	c.rollback()
	return c
}

func (m *metadata) rollback() {
	for i := len(m.undo) - 1; i >= 0; i-- {
		m.undo[i](m)
	}
	m.settle()
}

// settle is what a commit leaves: nothing to undo, and freed blocks free.
func (m *metadata) settle() {
	m.undo = nil
	for block := range m.freed {
		m.lowest = min(m.lowest, block)
	}
	clear(m.freed)
}

func (m *metadata) undoBy(f func(*metadata)) { m.undo = append(m.undo, f) }

func (m *metadata) createThin(id dm.DeviceID) error {
	if m.thins[id] != nil {
		return unix.EEXIST
	}
	m.add(id, &thinDetails{born: m.transactionID, created: m.time, snapshotted: m.time, mapped: map[uint64]mapping{}})
	return nil
}

func (m *metadata) add(id dm.DeviceID, t *thinDetails) {
	m.put(id, t)
	m.undoBy(func(m *metadata) { m.take(id) })
}

// put and take, like mapAt and unmapAt, keep count of leaves.
func (m *metadata) put(id dm.DeviceID, t *thinDetails) {
	m.thins[id] = t
	m.leaves += t.leaves()
}

func (m *metadata) take(id dm.DeviceID) {
	m.leaves -= m.thins[id].leaves()
	delete(m.thins, id)
}

func (m *metadata) mapAt(id dm.DeviceID, virtual uint64, at mapping) {
	t := m.thins[id]
	m.leaves -= t.leaves()
	t.mapped[virtual] = at
	m.leaves += t.leaves()
}

func (m *metadata) unmapAt(id dm.DeviceID, virtual uint64) {
	t := m.thins[id]
	m.leaves -= t.leaves()
	delete(t.mapped, virtual)
	m.leaves += t.leaves()
}

// leaves are half full.
func (t *thinDetails) leaves() uint64 { return uint64(len(t.mapped)) / 126 }

// createSnap looks for the new id before it looks for the origin.
func (m *metadata) createSnap(id, origin dm.DeviceID) error {
	if m.thins[id] != nil {
		return unix.EEXIST
	}
	from := m.thins[origin]
	if from == nil {
		return unix.ENODATA
	}
	time, snapshotted := m.time, from.snapshotted
	m.undoBy(func(m *metadata) { m.time, m.thins[origin].snapshotted = time, snapshotted })
	m.time++
	from.snapshotted = m.time
	m.add(id, &thinDetails{
		born: m.transactionID, created: m.time, snapshotted: m.time, mapped: maps.Clone(from.mapped),
	})
	for _, at := range from.mapped {
		m.ref(at.block, +1)
	}
	return nil
}

func (m *metadata) delete(id dm.DeviceID) error {
	t := m.thins[id]
	if t == nil {
		return unix.ENODATA
	}
	m.take(id)
	m.undoBy(func(m *metadata) { m.put(id, t.clone()) }) // t may be undone in other copies of m too
	for _, at := range t.mapped {
		m.ref(at.block, -1)
	}
	return nil
}

func (m *metadata) setTransactionID(current, next uint64) error {
	if m.transactionID != current {
		return unix.EINVAL
	}
	m.transactionID = next
	m.undoBy(func(m *metadata) { m.transactionID = current })
	return nil
}

// hold keeps what is there now until release: the held snapshot counts as one more
// user of each data block.
func (m *metadata) hold() { m.setHeld(true, slices.Collect(maps.Keys(m.refs)), +1) }

func (m *metadata) release() { m.setHeld(false, nil, -1) }

func (m *metadata) setHeld(held bool, blocks []uint64, by int) {
	was, wasBlocks := m.held, m.heldBlocks
	m.held, m.heldBlocks = held, blocks
	m.undoBy(func(m *metadata) { m.held, m.heldBlocks = was, wasBlocks })
	for _, block := range append(blocks, wasBlocks...) {
		m.ref(block, by)
	}
}

// ref counts users of a data block. A block that loses its last one is free
// after the next commit: the last one still needs it.
func (m *metadata) ref(block uint64, by int) {
	if m.refs[block] += by; m.refs[block] == 0 {
		delete(m.refs, block)
		m.freed[block] = struct{}{}
	}
	m.undoBy(func(m *metadata) {
		if m.refs[block] -= by; m.refs[block] == 0 {
			delete(m.refs, block)
			m.lowest = min(m.lowest, block)
		}
	})
}

// shared reports whether a write to at must not change the block in place: a
// snapshot was taken since it was written.
func (t *thinDetails) shared(at mapping) bool { return t.snapshotted > at.time }

// provision maps a virtual block to a data block of its own, the first that is
// free: EAGAIN if none is.
func (m *metadata) provision(id dm.DeviceID, virtual uint64) (uint64, error) {
	for ; m.lowest < m.dataBlocks; m.lowest++ {
		block := m.lowest
		if _, freed := m.freed[block]; m.refs[block] == 0 && !freed {
			m.unmap(id, virtual)
			m.ref(block, +1)
			m.mapAt(id, virtual, mapping{block, m.time})
			m.undoBy(func(m *metadata) { m.unmapAt(id, virtual) })
			return block, nil
		}
	}
	return 0, unix.EAGAIN
}

// resize sets how many blocks of data and of metadata there are.
func (m *metadata) resize(data, meta uint64) {
	wasData, wasMeta := m.dataBlocks, m.blocks
	m.dataBlocks, m.blocks = data, meta
	m.undoBy(func(m *metadata) { m.dataBlocks, m.blocks = wasData, wasMeta })
}

// unmap takes a virtual block's data block away and tells which one it was.
func (m *metadata) unmap(id dm.DeviceID, virtual uint64) (block uint64, ok bool) {
	t := m.thins[id]
	at, ok := t.mapped[virtual]
	if ok {
		m.unmapAt(id, virtual)
		m.undoBy(func(m *metadata) { m.mapAt(id, virtual, at) })
		m.ref(at.block, -1)
	}
	return at.block, ok
}

// dataUsage counts what a commit still needs as used.
func (m *metadata) dataUsage() dm.Usage {
	return dm.Usage{Used: uint64(len(m.refs) + len(m.freed)), Total: m.dataBlocks}
}

// usage estimates the metadata blocks in use, the hidden reserve included, after
// what was seen on Linux 6.1: 17 blocks for an empty pool, one for each thin, and
// leaves of the trees half full.
func (m *metadata) usage() dm.Usage {
	used := m.reserve() + 17 + uint64(len(m.thins)) + uint64(len(m.thins))/63 + m.leaves
	return dm.Usage{Used: min(used, m.blocks), Total: m.blocks}
}

// reserve is what the kernel counts as used and keeps for itself.
func (m *metadata) reserve() uint64 { return min(4096, m.blocks/10) }
