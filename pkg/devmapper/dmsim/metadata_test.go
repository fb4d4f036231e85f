package dmsim

import (
	"math/rand/v2"
	"reflect"
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// What metadata keeps count of is what a search finds, and what it undoes is all
// since the last commit, in the original as in copies.
func TestMetadataAgainstSearches(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		m := newMetadata(dm.MinBlockSize, 1000)
		m.resize(300, 1000)
		m.settle()
		committed := m.clone()
		for range 500 {
			other := m.clone()
			for range 3 {
				anything(random, other, func(uint64) {})
			}
			anything(random, m, func(chosen uint64) {
				if want := m.firstFree(); chosen != want {
					t.Errorf("seed %d: block %d is taken, want %d", seed, chosen, want)
				}
			})
			if have, want := m.leaves, m.countLeaves(); have != want {
				t.Fatalf("seed %d: %d leaves, want %d", seed, have, want)
			}
			other.rollback()
			for _, have := range []*metadata{m.committed(), other} {
				if !have.same(committed) {
					t.Fatalf("seed %d: as of the last commit %+v, want %+v", seed, have, committed)
				}
				for range 3 { // m does not hear of it
					anything(random, have, func(uint64) {})
				}
			}
			switch random.IntN(20) {
			case 0:
				m.settle()
				committed = m.clone()
			case 1:
				m.rollback()
			}
		}
	}
}

// anything changes m somehow. It calls check before a block is taken.
func anything(random *rand.Rand, m *metadata, check func(chosen uint64)) {
	id, virtual := dm.DeviceID(random.IntN(4)), uint64(random.IntN(200))
	switch n := random.IntN(40); {
	case n == 0:
		_ = m.delete(id) // each may be refused
	case n == 1:
		_ = m.createSnap(id, dm.DeviceID(random.IntN(4)))
	case n == 2:
		_ = m.createThin(id)
	case n == 3:
		_ = m.setTransactionID(m.transactionID, random.Uint64())
	case n == 4 && !m.held:
		m.hold()
	case n == 5 && m.held:
		m.release()
	case n == 6:
		m.resize(m.dataBlocks+10, m.blocks)
	case m.thins[id] == nil:
	case n < 14:
		m.unmap(id, virtual)
	default:
		probe := m.clone()
		if block, err := probe.provision(id, virtual); err == nil {
			check(block)
		}
		_, _ = m.provision(id, virtual)
	}
}

func (m *metadata) firstFree() (block uint64) {
	for ; ; block++ {
		if _, freed := m.freed[block]; m.refs[block] == 0 && !freed {
			return block
		}
	}
}

func (m *metadata) countLeaves() (leaves uint64) {
	for _, t := range m.thins {
		leaves += t.leaves()
	}
	return leaves
}

// same reports whether a disk would show the same; lowest is but a hint.
func (m *metadata) same(other *metadata) bool {
	a, b := *m, *other
	a.undo, b.undo, a.lowest, b.lowest, a.freed, b.freed = nil, nil, 0, 0, nil, nil
	return reflect.DeepEqual(a, b)
}
