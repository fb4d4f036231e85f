package dmsim

import (
	"maps"

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
	thins         map[dm.DeviceID]*thinDetails
	refs          map[uint64]int      // how many thins use a data block
	freed         map[uint64]struct{} // data blocks that the last commit still uses
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
	c := *m
	c.refs, c.freed = maps.Clone(m.refs), maps.Clone(m.freed)
	c.thins = make(map[dm.DeviceID]*thinDetails, len(m.thins))
	for id, t := range m.thins {
		copied := *t
		copied.mapped = maps.Clone(t.mapped)
		c.thins[id] = &copied
	}
	c.rollback()
	return &c
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
	m.thins[id] = t
	m.undoBy(func(m *metadata) { delete(m.thins, id) })
}

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
	delete(m.thins, id)
	m.undoBy(func(m *metadata) { m.thins[id] = t })
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

func (m *metadata) setHeld(held bool) {
	was := m.held
	m.held = held
	m.undoBy(func(m *metadata) { m.held = was })
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
		}
	})
}

// shared reports whether a write to at must not change the block in place: a
// snapshot was taken since it was written.
func (t *thinDetails) shared(at mapping) bool { return t.snapshotted > at.time }

// provision maps a virtual block to a data block of its own: EAGAIN if none is
// free.
func (m *metadata) provision(id dm.DeviceID, virtual uint64) (uint64, error) {
	for block := range m.dataBlocks {
		if _, freed := m.freed[block]; m.refs[block] == 0 && !freed {
			m.unmap(id, virtual)
			m.ref(block, +1)
			m.thins[id].mapped[virtual] = mapping{block, m.time}
			m.undoBy(func(m *metadata) { delete(m.thins[id].mapped, virtual) })
			return block, nil
		}
	}
	return 0, unix.EAGAIN
}

// unmap takes a virtual block's data block away and tells which one it was.
func (m *metadata) unmap(id dm.DeviceID, virtual uint64) (block uint64, ok bool) {
	t := m.thins[id]
	at, ok := t.mapped[virtual]
	if ok {
		delete(t.mapped, virtual)
		m.undoBy(func(m *metadata) { m.thins[id].mapped[virtual] = at })
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
	used := min(4096, m.blocks/10) + 17 + uint64(len(m.thins)) + uint64(len(m.thins))/63
	for _, t := range m.thins {
		used += uint64(len(t.mapped)) / 126
	}
	return dm.Usage{Used: min(used, m.blocks), Total: m.blocks}
}
