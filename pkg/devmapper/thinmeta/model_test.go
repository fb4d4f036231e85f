package thinmeta

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// live lets a pool live through a number of random changes.
func (m *model) live(changes int) {
	m.create(0)
	for range changes {
		ids := m.ids()
		id := ids[m.IntN(len(ids))]
		next := devmapper.DeviceID(m.IntN(30))
		_, taken := m.devices[next]
		switch n := m.IntN(20); {
		case n == 0 && !taken:
			m.create(next)
		case n < 3 && !taken:
			m.snapshot(next, id)
		case n == 3 && len(ids) > 1:
			delete(m.devices, id)
		case n < 8:
			m.stretch(id, m.discard)
		default:
			m.stretch(id, m.write)
		}
	}
}

// stretch does something to a few blocks in a row.
func (m *model) stretch(id devmapper.DeviceID, do func(devmapper.DeviceID, uint64)) {
	from := uint64(m.IntN(200))
	for block := from; block < from+1+uint64(m.IntN(8)); block++ {
		do(id, block)
	}
}

// The functions called want give answers by the plainest means.

func (m *model) wantDevices() (devices []Device) {
	for _, id := range m.ids() {
		devices = append(devices, m.devices[id].details)
	}
	return devices
}

func wantRanges(blocks map[uint64]uint64) (ranges []Range) {
	for _, block := range slices.Sorted(maps.Keys(blocks)) {
		ranges = appendBlock(ranges, block)
	}
	return ranges
}

func wantMappings(blocks map[uint64]uint64) (mappings []Mapping) {
	for _, block := range slices.Sorted(maps.Keys(blocks)) {
		mappings = appendMapping(mappings, block, blocks[block])
	}
	return mappings
}

func wantDelta(from, to map[uint64]uint64) []Difference {
	both := maps.Clone(from)
	maps.Copy(both, to)
	var c comparison
	for _, block := range slices.Sorted(maps.Keys(both)) {
		a, inA := from[block]
		b, inB := to[block]
		switch {
		case !inB:
			c.append(block, Removed)
		case !inA:
			c.append(block, Added)
		case a != b:
			c.append(block, Rewritten)
		}
	}
	return c.differences
}

func (m *model) wantExclusive(id devmapper.DeviceID) []Range {
	users := map[uint64]int{} // of data blocks
	for _, d := range m.devices {
		for _, data := range d.blocks {
			users[data]++
		}
	}
	own := maps.Clone(m.devices[id].blocks)
	maps.DeleteFunc(own, func(_, data uint64) bool { return users[data] > 1 })
	return wantRanges(own)
}

// equal fails the test if an answer is an error or another than the one wanted.
func equal[T any](t *testing.T, what string, want T) func(have T, err error) {
	t.Helper()
	return func(have T, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !reflect.DeepEqual(have, want) {
			t.Fatalf("%s: have %v, want %v", what, have, want)
		}
	}
}

func TestRandomPools(t *testing.T) {
	seeds(t, 40, func(t *testing.T, seed uint64) {
		m := newModel(seed)
		m.live(m.IntN(300))
		m.compare(t, openImage(m.image().bytes()))
	})
}

// seeds runs a test with seeds that nobody has tried yet, and names them if it
// fails.
func seeds(t *testing.T, count uint64, test func(t *testing.T, seed uint64)) {
	first := rand.Uint64()
	for seed := first; seed != first+count; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { test(t, seed) })
	}
}

// compare asks all questions.
func (m *model) compare(t *testing.T, have *Metadata) {
	defer have.Close()
	for _, id := range m.ids() {
		d := m.devices[id]
		equal(t, "device", d.details)(have.Device(id))
		equal(t, "ranges", wantRanges(d.blocks))(have.Ranges(id))
		equal(t, "mappings", wantMappings(d.blocks))(have.Mappings(id))
		equal(t, "extent", wantExtent(d.blocks))(have.Extent(id))
		equal(t, "exclusive", m.wantExclusive(id))(have.Exclusive(id))
		for _, to := range m.ids() {
			equal(t, "delta", wantDelta(d.blocks, m.devices[to].blocks))(have.Delta(id, to))
		}
	}
	equal(t, "devices", m.wantDevices())(have.Devices())
}

func wantExtent(blocks map[uint64]uint64) (end Blocks) {
	for block := range blocks {
		end = max(end, Blocks(block)+1)
	}
	return end
}

// A delta of snapshots that differ in a few places reads little more than the
// ways to these places.
func TestDeltaSkipsWhatIsShared(t *testing.T) {
	m := newModel(1)
	m.create(1)
	for block := range uint64(20_000) {
		m.write(1, block)
	}
	m.snapshot(2, 1)
	for _, block := range []uint64{5, 9_000, 19_999} {
		m.write(1, block)
	}
	meta := openImage(m.image().bytes())
	defer meta.Close()
	equal(t, "delta", wantDelta(m.devices[1].blocks, m.devices[2].blocks))(meta.Delta(1, 2))
	if reads := meta.Reads(); reads > 200 {
		t.Errorf("%d reads", reads)
	}
	before := meta.Reads()
	equal[[]Difference](t, "delta to itself", nil)(meta.Delta(2, 2))
	t.Logf("%d reads for three changes, %d for none", before, meta.Reads()-before)
}
