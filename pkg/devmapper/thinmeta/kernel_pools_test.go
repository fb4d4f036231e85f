package thinmeta

import (
	"math/rand/v2"
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Random pools of the real kernel read as thin_dump, thin_ls and thin_delta read
// them.
func TestKernelPools(t *testing.T) {
	k := leavesNothing(t)
	seeds(t, 32, func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		blockSize := []dm.Sectors{128, 256, 384, 2048}[random.IntN(4)]
		p := newKernelPool(t, k, metadataFile(t, 8<<20), blockSize, 1<<20)
		held := p.live(random, 30)
		p.matchesStatus()
		p.stop()
		p.matchesTools(t, random, held)
		p.close()
	})
}

// live lets the pool live through random changes, and reports whether it then
// holds a metadata snapshot.
func (p *kernelPool) live(random *rand.Rand, changes int) (held bool) {
	p.Helper()
	p.must(p.CreateThin(0))
	devices := []dm.DeviceID{0}
	for next := dm.DeviceID(1); changes > 0; changes-- {
		at := random.IntN(len(devices))
		switch n := random.IntN(20); {
		case n == 0:
			p.must(p.CreateThin(next))
			devices, next = append(devices, next), next+1
		case n < 4:
			p.must(p.CreateSnap(next, devices[at]))
			devices, next = append(devices, next), next+1
		case n == 4 && len(devices) > 1:
			p.must(p.Delete(devices[at]))
			devices = append(devices[:at], devices[at+1:]...)
		case n == 5:
			p.must(p.SetTransactionID(p.transactionID(), p.transactionID()+1))
		case n == 6 && !held && random.IntN(3) == 0:
			p.must(p.ReserveMetadataSnap())
			held = true
		default:
			p.change(random, devices[at])
		}
	}
	return held
}

func (p *kernelPool) transactionID() uint64 {
	p.Helper()
	id, err := p.TransactionID()
	p.must(err)
	return id
}

// change writes here and there on a device, and discards.
func (p *kernelPool) change(random *rand.Rand, id dm.DeviceID) {
	p.Helper()
	v := p.open(id, volumeBlocks)
	defer v.close()
	for range 1 + random.IntN(4) {
		begin := random.Uint64N(volumeBlocks)
		length := min(1+random.Uint64N(1<<random.IntN(9)), volumeBlocks-begin)
		if random.IntN(4) == 0 {
			v.discard(begin, length)
			continue
		}
		for i := range length {
			v.write(begin + i)
		}
	}
}

// matchesStatus compares the superblock with what the kernel tells of the pool,
// while it is active.
func (p *kernelPool) matchesStatus() {
	p.Helper()
	status, err := p.Commit()
	p.must(err)
	m, err := Open(p.loop.Name())
	p.must(err)
	defer m.Close()
	super, err := m.Superblock()
	p.must(err)
	if super.TransactionID != status.TransactionID || super.HeldRoot != status.HeldRoot || super.NeedsCheck ||
		super.Data != status.Data || super.Metadata.Total != status.Metadata.Total || super.BlockSize != p.blockSize {
		p.Fatalf("superblock is %+v, status %+v", super, status)
	}
}

// matchesTools compares all answers on a pool with those of the tools. They get
// the device, as they want direct I/O and files in memory have none.
func (p *kernelPool) matchesTools(t *testing.T, random *rand.Rand, held bool) {
	t.Helper()
	m, err := Open(p.path)
	p.must(err)
	defer m.Close()
	want := dumped(t, run(t, "thin_dump", p.loop.Name()))
	want.matches(t, m)
	if held {
		p.matchesHeld(t)
	} else {
		p.matchesThinLs(t, m, want)
	}
	ids := want.ids()
	from, to := ids[random.IntN(len(ids))], ids[random.IntN(len(ids))]
	delta, err := m.Delta(from, to)
	p.must(err)
	sameDelta(t, delta, thinDelta(t, p.loop.Name(), from, to))
}

// matchesHeld compares answers on the metadata that the pool holds.
func (p *kernelPool) matchesHeld(t *testing.T) {
	t.Helper()
	m, err := OpenHeld(p.path)
	p.must(err)
	defer m.Close()
	dumped(t, run(t, "thin_dump", "-m", p.loop.Name())).matches(t, m)
}

func (p *kernelPool) matchesThinLs(t *testing.T, m *Metadata, want *model) {
	t.Helper()
	exclusive := thinLs(t, p.loop.Name())
	for id := range want.devices {
		ranges, err := m.Exclusive(id)
		equal(t, "exclusive blocks", want.wantExclusive(id))(ranges, err)
		if Sum(ranges) != exclusive[id] {
			t.Fatalf("device %d has %d exclusive blocks, by thin_ls %d", id, Sum(ranges), exclusive[id])
		}
	}
}

// matches compares answers with those that a dump gives.
func (m *model) matches(t *testing.T, have *Metadata) {
	t.Helper()
	ids := m.ids()
	for i, id := range ids {
		d := m.devices[id]
		equal(t, "mappings", wantMappings(d.blocks))(have.Mappings(id))
		equal(t, "ranges", wantRanges(d.blocks))(have.Ranges(id))
		equal(t, "extent", wantExtent(d.blocks))(have.Extent(id))
		to := ids[(i+1)%len(ids)]
		equal(t, "delta", wantDelta(d.blocks, m.devices[to].blocks))(have.Delta(id, to))
	}
	equal(t, "devices", m.wantDevices())(have.Devices())
}
