package deviceset

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// Where a pool's files are, under the root.
func (s *DeviceSet) loopData() string     { return filepath.Join(s.root, "devicemapper", "data") }
func (s *DeviceSet) loopMetadata() string { return filepath.Join(s.root, "devicemapper", "metadata") }

// kind returns what kind of pool the options ask for.
func (c *Config) kind() poolKind {
	switch {
	case c.ThinPool != "":
		return poolExisting
	case c.DataDevice != "":
		return poolDevices
	}
	return poolLoop
}

// openData opens the data device for reading alone, before there is a pool.
func (s *DeviceSet) openData() (Block, error) {
	switch s.config.kind() {
	case poolLoop:
		return s.machine.OpenFile(s.loopData(), 0, Holes)
	case poolDevices:
		return s.machine.OpenDisk(s.config.DataDevice)
	}
	table, err := s.existingTable()
	if err != nil {
		return nil, err
	}
	return s.machine.OpenNumber(table.Data)
}

// openDisks opens or makes what the pool lies on.
func (s *DeviceSet) openDisks(r poolRecord) (err error) {
	p := s.pool
	switch r.Kind {
	case poolLoop:
		if p.data, err = s.openDataFile(r); err != nil {
			return err
		}
		p.metadata, err = s.openPoolFile(r, s.loopMetadata(), s.loopMetadataSize(), Zeros)
	case poolDevices:
		if p.data, err = s.machine.OpenDisk(s.config.DataDevice); err != nil {
			return err
		}
		p.metadata, err = s.machine.OpenDisk(s.config.MetadataDevice)
	}
	return err
}

// openPoolFile opens or makes a file that a pool lies on. Of a pool that was made it must
// be there: an empty one in its place would hide that it is missing.
func (s *DeviceSet) openPoolFile(r poolRecord, path string, size int64, with Filling) (Disk, error) {
	if !r.Made {
		return s.machine.OpenFile(path, size, with)
	}
	d, err := s.machine.OpenFile(path, 0, with)
	if err != nil {
		return nil, fmt.Errorf("file of pool %s: %w", r.UUID, err)
	}
	have, err := d.Size()
	if err == nil && have < size {
		err = d.Grow(size, with)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (s *DeviceSet) loopMetadataSize() int64 {
	if size := s.config.LoopMetadataSize; size != 0 {
		return size
	}
	return metadataSizeFor(s.config.LoopDataSize)
}

// assemble makes the pool active, or finds it so, after it has made sure that it is
// the one that r describes.
func (s *DeviceSet) assemble(r poolRecord) error {
	if kind := s.config.kind(); kind != r.Kind {
		return fmt.Errorf("%w: the pool under this root is of kind %q, the options ask for %q", ErrInvalid, r.Kind, kind)
	}
	// First of all: whoever waits for a device that a dead process suspended.
	if err := s.takeOverDevices(); err != nil {
		return err
	}
	if s.pool.existing {
		return s.adoptTable(r, true)
	}
	if err := s.openDisks(r); err != nil {
		return err
	}
	if err := s.checkData(s.pool.data, r); err != nil {
		return err
	}
	return s.activatePool(r)
}

// takeOverDevices brings the pool's devices into order, unless their owner lives: then
// they are in order, or about to be, and the label is open.
func (s *DeviceSet) takeOverDevices() error {
	label, err := s.pool.thin(labelID).Info()
	if err == nil && label.OpenCount > 0 {
		return fmt.Errorf("%w: the label of pool %s is open", ErrInUse, s.pool.uuid)
	}
	return s.pool.tidy()
}

// activatePool activates the pool on its open disks.
func (s *DeviceSet) activatePool(r poolRecord) error {
	p := s.pool
	p.metaDev = p.metadata.Dev()
	live, err := p.Table()
	if err == nil {
		return s.checkLive(live)
	}
	if !errors.Is(err, unix.ENXIO) {
		return err
	}
	size, err := p.data.Size()
	if err != nil {
		return err
	}
	given, err := s.checkMetadata(r, size)
	if err != nil {
		return err
	}
	return p.assemble(size, given)
}

// assemble activates the metadata's linear device and the pool on it.
func (p *pool) assemble(dataSize int64, given dm.Sectors) error {
	if err := p.activateLinear(given); err != nil {
		return err
	}
	info, err := p.linear.Info()
	if err != nil {
		return err
	}
	p.features.Metadata, p.features.Data = info.Dev, p.data.Dev()
	if _, err = dm.Activate(p.kernel, p.dmName(poolSuffix), p.dmUUID(poolSuffix), p.table(dataSize)); err != nil {
		return fmt.Errorf("activate pool: %w", err)
	}
	return p.found()
}

// found asks for the number of the pool's device.
func (p *pool) found() error {
	info, err := p.Info()
	p.dev = info.Dev
	return err
}

// activateLinear makes the device with the part of the metadata that the pool is
// given.
func (p *pool) activateLinear(given dm.Sectors) error {
	table := dm.Whole(given, dm.Linear{Dev: p.metadata.Dev()})
	live, err := p.linear.Table()
	switch {
	case errors.Is(err, unix.ENXIO):
		_, err = dm.Activate(p.kernel, p.dmName(metaSuffix), p.dmUUID(metaSuffix), table)
		return err
	case err != nil:
		return err
	case live.String() == table.String():
		return nil
	case len(live) == 1 && live[0].Target == table[0].Target && live.Length() < given:
		p.decided(RuleMetadataGiven)
		return p.linear.Swap(table, quickly)
	case len(live) == 1 && live[0].Target == table[0].Target:
		return nil // metadata that was restored or repaired has all of its device
	}
	return fmt.Errorf("%w: %s has table %q, want %q", ErrForeign, p.linear, live, table)
}

// checkLive takes a pool that is active already, such as after a restart, if it is
// ours. Its features become those of the options.
func (s *DeviceSet) checkLive(live dm.Table) error {
	p := s.pool
	info, err := p.Info()
	if err != nil {
		return err
	}
	linear, err := p.linear.Info()
	if err != nil {
		return fmt.Errorf("metadata of pool %s: %w", p, err)
	}
	want := dm.ThinPool{Metadata: linear.Dev, Data: p.data.Dev()}
	t, ok := thinPoolOf(live)
	if !ok || info.UUID != p.dmUUID(poolSuffix) || t.Metadata != want.Metadata || t.Data != want.Data || t.BlockSize != p.blockSize {
		return fmt.Errorf("%w: device %s has uuid %q and table %q, want a thin-pool on metadata %s and data %s",
			ErrForeign, p, info.UUID, live, want.Metadata, want.Data)
	}
	p.features.Metadata, p.features.Data, p.dev = t.Metadata, t.Data, info.Dev
	if want := p.table(live.Length().Bytes()); want.String() != live.String() {
		if err := p.Swap(want, quickly); err != nil {
			s.warnings = append(s.warnings, fmt.Sprintf("the pool runs on with table %q: %v", live, err))
		}
	}
	return nil
}

func thinPoolOf(table dm.Table) (dm.ThinPool, bool) {
	if len(table) != 1 {
		return dm.ThinPool{}, false
	}
	t, ok := table[0].Target.(dm.ThinPool)
	return t, ok
}

// checkMetadata looks at the metadata before the kernel does, and returns how much
// of it the pool needs: what it has been given, of which a record that is older may
// know less than the metadata itself.
func (s *DeviceSet) checkMetadata(r poolRecord, dataSize int64) (given dm.Sectors, err error) {
	path := s.pool.metadata.Path()
	m, err := s.machine.Metadata(s.pool.metaDev)
	switch {
	case errors.Is(err, thinmeta.ErrBlank):
		return 0, fmt.Errorf("%w: %s begins with zeros, and the journal says that it was the metadata of pool %s: put the right disk there, or restore it (thin_repair, thin_restore)",
			ErrLostMetadata, path, r.UUID)
	case errors.As(err, new(*thinmeta.CorruptError)):
		return 0, fmt.Errorf("%s: %w: look at it with thin_check, and repair it into a copy (thin_repair)", path, err)
	case err != nil:
		return 0, err
	}
	defer func() { _ = m.Close() }() // it was only read
	super, err := m.Superblock()
	if err != nil {
		return 0, err
	}
	have := dm.SectorsIn(dataSize) / r.BlockSize
	switch {
	case super.BlockSize != r.BlockSize:
		return 0, fmt.Errorf("%w: %s is the metadata of a pool with blocks of %d bytes, want %d", ErrForeign, path, super.BlockSize.Bytes(), r.BlockSize.Bytes())
	case uint64(have) < super.Data.Total:
		return 0, fmt.Errorf("data device %s has %d blocks, and the pool needs %d: it must not shrink", r.Data, have, super.Data.Total)
	}
	given = max(r.Given, dm.Sectors(super.Metadata.Total)*dm.MetadataBlockSize)
	size, err := s.pool.metadata.Size()
	if err != nil {
		return 0, err
	}
	if allOf(size) < given {
		return 0, fmt.Errorf("metadata device %s has %d bytes, and the pool needs %d: it must not shrink", path, size, given.Bytes())
	}
	return given, nil
}

// existingTable returns the table of the pool that dm.thinpooldev names.
func (s *DeviceSet) existingTable() (dm.ThinPool, error) {
	name := s.config.ThinPool
	live, err := dm.ByName(s.machine, name).Table()
	if errors.Is(err, unix.ENXIO) {
		return dm.ThinPool{}, fmt.Errorf("%w: dm.thinpooldev names %s, and there is no such device", ErrInvalid, name)
	}
	if err != nil {
		return dm.ThinPool{}, err
	}
	t, ok := thinPoolOf(live)
	if !ok {
		return t, fmt.Errorf("%w: dm.thinpooldev names %s, which is no thin-pool: %q (with LVM the pool is the device whose name ends in -tpool)", ErrInvalid, name, live)
	}
	return t, nil
}

// adoptTable takes the table of an existing pool as it is. With labelled set, its
// data must begin with the label of r.
func (s *DeviceSet) adoptTable(r poolRecord, labelled bool) error {
	t, err := s.existingTable()
	if err != nil {
		return err
	}
	p := s.pool
	p.metaDev = t.Metadata
	if labelled {
		if t.BlockSize != r.BlockSize {
			return fmt.Errorf("%w: pool %s has blocks of %d bytes, want %d", ErrForeign, r.Data, t.BlockSize.Bytes(), r.BlockSize.Bytes())
		}
		data, err := s.machine.OpenNumber(t.Data)
		if err != nil {
			return err
		}
		defer func() { _ = data.Close() }() // it was only read
		if err := s.checkData(data, r); err != nil {
			return err
		}
	}
	return p.found()
}
