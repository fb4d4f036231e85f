package dmsim

import (
	"fmt"
	"maps"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// Metadata is the metadata of a pool, open for reading. Its methods are those of
// thinmeta.Metadata: each reads anew what was committed last, and errors have the
// same causes. A pool is never too busy for it, so nothing is ErrChanged.
type Metadata struct {
	file *File
	dev  dm.DevNo
}

// Metadata opens the metadata on a disk.
func (d *Disk) Metadata() (*Metadata, error) { return d.kernel.MetadataOf(d.dev) }

// MetadataOf opens the metadata on a disk or on a dm device that begins where a
// disk does. It is an open file until it is closed, and reads as one.
func (k *Kernel) MetadataOf(dev dm.DevNo) (*Metadata, error) {
	f, err := k.Open(dev)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %s: %w", dev, err)
	}
	m := &Metadata{file: f, dev: dev}
	if _, err := ask(m, "open metadata", func(*metadata) (none struct{}, err error) { return none, nil }); err != nil {
		_ = f.Close() // it was only read
		return nil, err
	}
	return m, nil
}

// Close closes the device. Closing again is no error.
func (m *Metadata) Close() error { return m.file.Close() }

// Superblock returns the superblock as of the last commit.
func (m *Metadata) Superblock() (thinmeta.Superblock, error) {
	return ask(m, "read superblock", func(now *metadata) (thinmeta.Superblock, error) {
		s := thinmeta.Superblock{
			TransactionID: now.transactionID, Time: now.time, NeedsCheck: now.needsCheck, BlockSize: now.blockSize,
			Data: now.dataUsage(), Metadata: now.usage(),
		}
		if s.Metadata.Used -= now.reserve(); now.held {
			s.HeldRoot = heldRoot
		}
		return s, nil
	})
}

// Devices returns all devices of the pool, by rising id.
func (m *Metadata) Devices() ([]thinmeta.Device, error) {
	return ask(m, "list devices", func(now *metadata) (devices []thinmeta.Device, err error) {
		for _, id := range slices.Sorted(maps.Keys(now.thins)) {
			devices = append(devices, now.thins[id].describe(id))
		}
		return devices, nil
	})
}

// Device returns one device of the pool.
func (m *Metadata) Device(id dm.DeviceID) (thinmeta.Device, error) {
	return askThin(m, id, "", func(_ *metadata, t *thinDetails) thinmeta.Device { return t.describe(id) })
}

// Ranges returns what a device maps, in order and with gaps in between.
func (m *Metadata) Ranges(id dm.DeviceID) ([]thinmeta.Range, error) {
	return askThin(m, id, "ranges of ", func(_ *metadata, t *thinDetails) []thinmeta.Range {
		return t.ranges(func(mapping) bool { return true })
	})
}

// Extent returns the end of the highest block that a device maps, 0 if there is
// none.
func (m *Metadata) Extent(id dm.DeviceID) (thinmeta.Blocks, error) {
	return askThin(m, id, "extent of ", func(_ *metadata, t *thinDetails) (end thinmeta.Blocks) {
		for virtual := range t.mapped {
			end = max(end, thinmeta.Blocks(virtual+1))
		}
		return end
	})
}

// Exclusive returns the blocks of a device whose data no other device maps.
func (m *Metadata) Exclusive(id dm.DeviceID) ([]thinmeta.Range, error) {
	return askThin(m, id, "exclusive blocks of ", func(now *metadata, t *thinDetails) []thinmeta.Range {
		return t.ranges(func(at mapping) bool { return now.refs[at.block] == 1 })
	})
}

func (t *thinDetails) describe(id dm.DeviceID) thinmeta.Device {
	return thinmeta.Device{
		ID: id, Mapped: thinmeta.Blocks(len(t.mapped)),
		TransactionID: t.born, Created: t.created, Snapshotted: t.snapshotted,
	}
}

// ranges returns the virtual blocks whose mapping is chosen.
func (t *thinDetails) ranges(chosen func(mapping) bool) (ranges []thinmeta.Range) {
	for _, virtual := range slices.Sorted(maps.Keys(t.mapped)) {
		if !chosen(t.mapped[virtual]) {
			continue
		}
		begin := thinmeta.Blocks(virtual)
		if last := len(ranges) - 1; last >= 0 && ranges[last].End() == begin {
			ranges[last].Length++
		} else {
			ranges = append(ranges, thinmeta.Range{Begin: begin, Length: 1})
		}
	}
	return ranges
}

// ask answers a question from what was committed last.
func ask[T any](m *Metadata, operation string, question func(*metadata) (T, error)) (answer T, err error) {
	err = m.file.do(0, 0, func(s storage) error {
		now, err := committedOn(s)
		if err == nil {
			answer, err = question(now)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", m.dev, operation, err)
	}
	return answer, err
}

func askThin[T any](m *Metadata, id dm.DeviceID, what string, question func(*metadata, *thinDetails) T) (T, error) {
	return ask(m, fmt.Sprintf("%sdevice %d", what, id), func(now *metadata) (answer T, err error) {
		t := now.thins[id]
		if t == nil {
			return answer, fmt.Errorf("%w: %d", thinmeta.ErrNoSuchDevice, id)
		}
		return question(now, t), nil
	})
}

// committedOn finds the metadata on s as of its last commit.
func committedOn(s storage) (*metadata, error) {
	var first page
	if err := s.read(0, first[:]); err != nil {
		return nil, err
	}
	if first == (page{}) {
		return nil, thinmeta.ErrBlank
	}
	disk := diskBelow(s)
	if disk == nil || disk.committing() == nil {
		return nil, &thinmeta.CorruptError{Reason: "no superblock of a simulated pool"}
	}
	if now := disk.metadata; len(now.undo) == 0 {
		return now, nil
	}
	return disk.metadata.committed(), nil
}
