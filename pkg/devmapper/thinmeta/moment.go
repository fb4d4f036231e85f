package thinmeta

import (
	"cmp"
	"errors"
	"slices"
)

// attempts bounds how often a question to the whole pool is asked anew because the
// pool has moved on. Most are short, and a commit takes three flushes; but a pool
// that commits without a pause leaves few gaps.
const attempts = 100

// A visit reads blocks and remembers them, to tell later whether they still are
// what they were.
type visit struct {
	source *source
	blocks uint64 // how many the metadata has
	seen   []sighting
}

type sighting struct {
	block uint64
	sum   uint32 // of the content
}

// block returns the block that l leads to, which must be of kind k.
func (v *visit) block(l link, k kind) ([]byte, error) {
	if l.to == 0 || l.to >= v.blocks {
		return nil, corrupt(l.from, "leads to a %s in block %d of %d", k.name, l.to, v.blocks)
	}
	b, err := v.source.read(l.to, 1)
	if err != nil {
		return nil, err
	}
	v.seen = append(v.seen, sighting{l.to, checksum(b)})
	return b, k.check(l.to, b)
}

// unchanged reads again what was read, in long runs since the order does not
// matter now, and reports whether it is the same.
func (v *visit) unchanged() (bool, error) {
	slices.SortFunc(v.seen, func(a, b sighting) int { return cmp.Compare(a.block, b.block) })
	for rest := v.seen; len(rest) > 0; {
		run := firstRun(rest)
		b, err := v.source.read(run[0].block, len(run))
		if err != nil {
			return false, err
		}
		for i, s := range run {
			if checksum(b[i*blockSize:][:blockSize]) != s.sum {
				return false, nil
			}
		}
		rest = rest[len(run):]
	}
	return true, nil
}

// firstRun returns the longest beginning of seen whose blocks follow each other.
func firstRun(seen []sighting) []sighting {
	n := 1
	for n < len(seen) && n < maxRun && seen[n].block == seen[n-1].block+1 {
		n++
	}
	return seen[:n]
}

// A moment is the metadata as of one commit: a superblock and what was read from
// there.
type moment struct {
	visit
	metadata *Metadata
	super    superblock
	anchor   sighting // the block that super was read from
}

// now begins to read the metadata as it is now.
func (m *Metadata) now() (*moment, error) {
	super, anchor, err := m.superblockAt(0)
	if err != nil {
		return nil, err
	}
	if m.held {
		if super, anchor, err = m.heldBy(super); err != nil {
			return nil, err
		}
	}
	v := visit{source: m.source, blocks: super.Metadata.Total}
	return &moment{visit: v, metadata: m, super: super, anchor: anchor}, nil
}

// heldBy returns the superblock of the metadata that a pool holds. The copy's
// space maps are wiped, as blocks are counted once, in the live ones
// (drivers/md/dm-thin-metadata.c: __reserve_metadata_snap); their sizes only grow.
func (m *Metadata) heldBy(live superblock) (superblock, sighting, error) {
	if live.HeldRoot == 0 {
		return superblock{}, sighting{}, ErrNotHeld
	}
	if live.HeldRoot >= live.Metadata.Total {
		return superblock{}, sighting{}, corrupt(0, "leads to a held superblock in block %d of %d", live.HeldRoot, live.Metadata.Total)
	}
	held, anchor, err := m.superblockAt(live.HeldRoot)
	held.Data, held.Metadata = live.Data, live.Metadata
	held.dataMap, held.metadataMap = live.dataMap, live.metadataMap
	return held, anchor, err
}

func (m *Metadata) superblockAt(n uint64) (superblock, sighting, error) {
	b, err := m.source.read(n, 1)
	if err != nil {
		return superblock{}, sighting{}, err
	}
	s, err := parseSuperblock(n, b)
	return s, sighting{n, checksum(b)}, err
}

// unchanged reports whether all that was read, the superblock first, reads the
// same again.
func (now *moment) unchanged() (bool, error) {
	later, err := now.metadata.now()
	if err != nil || later.anchor != now.anchor {
		return false, nil // an error shows again at the next attempt
	}
	return now.visit.unchanged()
}

// settled answers a question about all that hangs on one superblock.
//
// The kernel never writes to a block that the last committed superblock can
// reach: what changes is copied to blocks that were free then, and blocks that
// became free are used after the next commit at the earliest
// (persistent-data/dm-transaction-manager.c: dm_tm_shadow_block;
// dm-space-map-metadata.c: sm_metadata_new_block_). So what was read belongs to
// one commit if its superblock was in place all the while. Equal superblocks
// before and after do not prove that: a pool that maps a block and unmaps it
// again has after two commits the same roots and counts, and other nodes in the
// same places, where the kernel looks for free blocks from the start at each
// commit.
//
// Therefore all that was read is read a second time. If nothing differs, then
// between the two readings all of it was in place at once, superblock included,
// and that is a commit. What could still deceive us is a block that differed in
// between and, before it was read again, came back bit for bit.
func settled[T any](m *Metadata, question func(*moment) (T, error)) (none T, err error) {
	trouble := ErrChanged
	for range attempts {
		now, err := m.now()
		if errors.As(err, new(*CorruptError)) {
			trouble = err // or the superblock is being written
			continue
		}
		if err != nil {
			return none, err
		}
		answer, failed := question(now)
		same, err := now.unchanged()
		switch {
		case err != nil:
			return none, err
		case same && failed != nil:
			return none, failed
		case same:
			return answer, nil
		}
	}
	return none, trouble
}
