package thinmeta

import (
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// treeAttempts bounds how often trees are read anew because their devices were
// written meanwhile: these questions may be long.
const treeAttempts = 8

// trees are the mappings of some devices, to be read at leisure.
type trees struct {
	visit
	devices []rooted
	limits  limits
}

// limits are what every mapping of a pool stays below.
type limits struct {
	virtual uint64 // a device has at most 2^63 bytes
	data    uint64 // data blocks of the pool
}

// inTrees answers a question about the mappings of some devices. prepare may be
// nil; it runs at the moment that devices are found at, and the answer holds for.
//
// The pool may commit meanwhile. A device's tree stays as it is, and with it
// every node of it, as long as the device is neither written, discarded nor
// deleted: each of these gives it another root. A root that was replaced and has
// come back (see settled) shows when what was read is read again.
func inTrees[T any](m *Metadata, ids []devmapper.DeviceID, prepare func(*moment) error, question func(*trees) (T, error)) (none T, err error) {
	for range treeAttempts {
		t, err := settled(m, func(now *moment) (*trees, error) { return now.trees(ids, prepare) })
		if err != nil {
			return none, err
		}
		answer, failed := question(t)
		later, err := settled(m, func(now *moment) (*trees, error) { return now.trees(ids, nil) })
		if err != nil {
			return none, err
		}
		if !t.sameRoots(later) {
			continue
		}
		same, err := t.unchanged()
		switch {
		case err != nil:
			return none, err
		case same && failed != nil:
			return none, failed
		case same:
			return answer, nil
		}
	}
	return none, ErrChanged
}

// trees finds devices.
func (now *moment) trees(ids []devmapper.DeviceID, prepare func(*moment) error) (*trees, error) {
	t := &trees{
		visit:  visit{source: now.source, blocks: now.blocks},
		limits: limits{virtual: 1 << 63 / uint64(now.super.BlockSize.Bytes()), data: now.super.Data.Total},
	}
	for _, id := range ids {
		d, err := now.device(id)
		if err != nil {
			return nil, err
		}
		t.devices = append(t.devices, d)
	}
	if prepare == nil {
		return t, nil
	}
	return t, prepare(now)
}

func (t *trees) sameRoots(later *trees) bool {
	for i, d := range t.devices {
		if !d.sameTree(later.devices[i]) {
			return false
		}
	}
	return true
}

// A target is what a mapping leads to: a data block, and the Superblock.Time at
// which it was mapped (drivers/md/dm-thin-metadata.c: unpack_block_time).
type target struct {
	block uint64
	time  uint32
}

const timeBits = 24

func (t *trees) mappings() tree[target] {
	return tree[target]{visit: &t.visit, valueSize: 8, limit: t.limits.virtual, decode: func(b []byte) (target, error) {
		v := le.Uint64(b)
		to := target{block: v >> timeBits, time: uint32(v & (1<<timeBits - 1))}
		if to.block >= t.limits.data {
			return to, fmt.Errorf("data block %d of %d", to.block, t.limits.data)
		}
		return to, nil
	}}
}

// each calls do for each mapping of a device, in order, and then compares their
// number with what the pool itself has counted.
func (t *trees) each(d rooted, do func(block uint64, to target)) error {
	count := Blocks(0)
	err := t.mappings().each(d.root, func(block uint64, to target) error {
		count++
		do(block, to)
		return nil
	})
	if err == nil && count != d.Mapped {
		err = corrupt(d.root.to, "device %d has %d mappings, by its details %d", d.ID, count, d.Mapped)
	}
	return err
}
