package dmsim

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Restore puts back what another machine's disk of the same number and size held
// durably: a disk or a file that comes back from an old copy. Nobody may have it
// open.
func (d *Disk) Restore(from *Disk) {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	d.durable, d.written, d.order = maps.Clone(from.durable), map[int64]*page{}, nil
	d.metadata, d.super = nil, from.super
	if from.metadata != nil {
		d.metadata = from.metadata.clone()
		d.metadata.rollback()
	}
}

// Digest tells machines apart whose disks would be found different after a power
// cut that loses all that is not flushed. It is not the same in two processes.
func (k *Kernel) Digest() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	var h maphash.Hash
	h.SetSeed(digestSeed)
	for _, d := range k.disks {
		d.digest(&h)
	}
	return h.Sum64()
}

var digestSeed = maphash.MakeSeed()

func (d *Disk) digest(h *maphash.Hash) {
	number := func(n uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:]) // never fails
	}
	number(uint64(d.dev))
	for _, at := range slices.Sorted(maps.Keys(d.durable)) {
		if p := d.durable[at]; *p != (page{}) {
			number(uint64(at))
			_, _ = h.Write(p[:])
		}
	}
	if d.metadata == nil {
		return
	}
	m := d.metadata
	if len(m.undo) > 0 {
		m = m.clone()
		m.rollback()
	}
	number(m.transactionID)
	number(uint64(m.time))
	for _, id := range slices.SortedFunc(maps.Keys(m.thins), cmp.Compare[dm.DeviceID]) {
		t := m.thins[id]
		number(uint64(id))
		number(t.born)
		number(uint64(t.created))
		for _, virtual := range slices.Sorted(maps.Keys(t.mapped)) {
			number(virtual)
			number(t.mapped[virtual].block)
		}
	}
}
