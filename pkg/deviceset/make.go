package deviceset

import (
	"fmt"
	"slices"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// makePool makes a pool where there is none: it looks whether the disks are free,
// writes down that it makes one, and makes it. Killed in between, the next start
// finds that note and does it again.
func (s *DeviceSet) makePool() error {
	if s.store != nil {
		s.closeSlots() // empty ones, of a start that was killed before the note
	}
	r := poolRecord{UUID: s.machine.NewUUID(), Secret: s.machine.NewUUID(), Kind: s.config.kind()}
	s.newPool(r)
	if err := s.measure(&r); err != nil {
		return err
	}
	release, err := s.pool.claim()
	if err != nil {
		return err
	}
	defer release()
	if err := s.checkFree(); err != nil {
		return err
	}
	if err := s.machine.MakeSlots(s.root, r.Label/2); err != nil {
		return err
	}
	slots, err := s.machine.OpenSlots(s.root)
	if err != nil {
		return err
	}
	s.slots = slots
	root := journal.New([2]journal.File{slots[0], slots[1]}, r.Label/2)
	s.store = newStore(root)
	s.store.catalog = newCatalog(r)
	s.store.head = journal.Header{Pool: r.UUID, Store: s.machine.NewUUID(), Machine: s.machine.ID()}
	if err := s.note(1); err != nil {
		return err
	}
	return s.build(r)
}

// claim keeps others from making a pool of the same disks, until there is one. Whoever
// comes after finds its label.
func (p *pool) claim() (release func(), err error) {
	var claims []func() error
	release = func() {
		for _, c := range claims {
			_ = c() // closing the disk does it, too
		}
	}
	for _, d := range []Disk{p.data, p.metadata} {
		if d == nil {
			continue
		}
		c, err := d.Claim()
		if err != nil {
			release()
			return nil, err
		}
		claims = append(claims, c)
	}
	return release, nil
}

// note writes a checkpoint under the root alone.
func (s *DeviceSet) note(first uint64) error {
	text, err := s.store.catalog.checkpoint()
	if err != nil {
		return err
	}
	head := s.store.head
	if s.label != nil {
		head.Peer = s.label.slots.Header().Sequence
	}
	return s.store.root.Switch(head, text, first)
}

func (s *DeviceSet) closeSlots() {
	for i, slot := range s.slots {
		if slot != nil {
			_ = slot.Close() // nothing was written
		}
		s.slots[i] = nil
	}
}

// measure opens the disks and decides how large everything is.
func (s *DeviceSet) measure(r *poolRecord) error {
	if r.Kind == poolExisting {
		return s.measureExisting(r)
	}
	if err := s.openDisks(*r); err != nil {
		return err
	}
	p := s.pool
	p.metaDev = p.metadata.Dev()
	dataSize, err := p.data.Size()
	if err != nil {
		return err
	}
	metadataSize, err := p.metadata.Size()
	if err != nil {
		return err
	}
	r.Data, r.Metadata, r.BlockSize = p.data.Path(), p.metadata.Path(), s.config.BlockSize
	if r.BlockSize == 0 {
		r.BlockSize = blockSizeFor(dataSize)
	}
	p.blockSize = r.BlockSize
	r.Given, r.Label = givenOf(metadataSize), s.config.labelSize(dataSize, r.BlockSize)
	return s.checkSizes(*r, dataSize)
}

func (s *DeviceSet) measureExisting(r *poolRecord) error {
	t, err := s.existingTable()
	if err != nil {
		return err
	}
	data, err := s.machine.OpenNumber(t.Data)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }() // it is only measured
	size, err := data.Size()
	if err != nil {
		return err
	}
	r.Data, r.BlockSize, s.pool.blockSize = s.config.ThinPool, t.BlockSize, t.BlockSize
	r.Label = s.config.labelSize(size, t.BlockSize)
	s.pool.Pool = dm.Pool{Device: dm.ByName(s.pool.kernel, r.Data)}
	return s.checkSizes(*r, size)
}

// labelSize is the rule's, unless a test has a smaller one.
func (c *Config) labelSize(dataSize int64, blockSize dm.Sectors) int64 {
	if c.label != 0 {
		return c.label
	}
	return labelSizeFor(dataSize, blockSize)
}

func (s *DeviceSet) checkSizes(r poolRecord, dataSize int64) error {
	if least := 2 * r.Label; dataSize < least {
		return fmt.Errorf("%w: a data device of %d bytes: want %d at least, of which the pool's label takes %d", ErrInvalid, dataSize, least, r.Label)
	}
	if least := dm.Sectors(2 * mib / dm.SectorSize); r.Kind != poolExisting && r.Given < least {
		return fmt.Errorf("%w: a metadata device of which the pool gets %d bytes: want %d at least, better a hundredth of the data", ErrInvalid, r.Given.Bytes(), least.Bytes())
	}
	return nil
}

// checkFree refuses disks that carry something, unless the options say otherwise,
// and existing pools that are in use.
func (s *DeviceSet) checkFree() error {
	p := s.pool
	if p.existing {
		return s.checkPristine()
	}
	for _, d := range []Disk{p.data, p.metadata} {
		size, err := d.Size()
		if err != nil {
			return err
		}
		heads, err := labelHeaders(d, size, 0)
		if err != nil {
			return err
		}
		if len(heads) > 0 {
			return fmt.Errorf("%w: %s begins with the label of pool %s (store %s, machine %s): adopt that pool, or wipe the disk yourself",
				ErrForeign, d.Path(), heads[0].Pool, heads[0].Store, heads[0].Machine)
		}
		if err := s.checkUnmarked(d); err != nil {
			return err
		}
	}
	return nil
}

// checkPristine refuses an existing pool that somebody has used.
func (s *DeviceSet) checkPristine() error {
	status, err := s.pool.PoolStatus()
	if err != nil {
		return err
	}
	if status.TransactionID != 0 || status.Data.Used != 0 || !status.Commits() {
		return fmt.Errorf("%w: pool %s is not pristine: transaction id %d, %d data blocks in use, mode %s: adopt it if it is yours, else make a new one",
			ErrForeign, s.pool, status.TransactionID, status.Data.Used, status.Mode)
	}
	t, err := s.existingTable()
	if err != nil {
		return err
	}
	return s.noThinsIn(t.Metadata)
}

// noThinsIn refuses metadata with thin devices, but for the label where a killed
// start may have left it.
func (s *DeviceSet) noThinsIn(dev dm.DevNo, but ...dm.DeviceID) error {
	m, err := s.machine.Metadata(dev)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // it was only read
	super, err := m.Superblock()
	if err != nil {
		return err
	}
	devices, err := m.Devices()
	if err != nil {
		return err
	}
	for _, d := range devices {
		if !slices.Contains(but, d.ID) || super.TransactionID != 0 {
			return fmt.Errorf("%w: the pool has thin device %d and transaction id %d", ErrForeign, d.ID, super.TransactionID)
		}
	}
	return nil
}

// checkUnmarked refuses a disk that is in use or, unless the options say otherwise,
// carries something.
func (s *DeviceSet) checkUnmarked(d Disk) error {
	used, err := d.InUse()
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: %s is in use: it is mounted, or another device lies on it", ErrForeign, d.Path())
	}
	if s.config.Force {
		return nil
	}
	what, err := s.machine.Signature(d)
	if err == nil && what != "" {
		err = fmt.Errorf("%w: %s carries %s: take another disk, or erase it with dm.force=true", ErrForeign, d.Path(), what)
	}
	return err
}

// build makes the pool and its label, and writes down that it is made. A pool of
// our own begins with zeros, by which the kernel knows that it is to be formatted
// (drivers/md/dm-thin-metadata.c: __open_or_format_metadata).
func (s *DeviceSet) build(r poolRecord) (err error) {
	data := Block(s.pool.data)
	if s.pool.existing {
		if err := s.adoptTable(r, false); err != nil {
			return err
		}
		if data, err = s.openData(); err != nil {
			return err
		}
		defer func() { _ = data.Close() }() // it was only read
	} else if err := s.format(r); err != nil {
		return err
	}
	if err := s.pool.CreateThin(labelID); err != nil {
		return err
	}
	if s.label, err = s.openLabel(r); err != nil {
		return err
	}
	c := s.store.catalog
	c.Pool.Made = true
	if err := s.writeLabel(r, data, c); err != nil {
		return err
	}
	if err := s.note(s.store.root.Next()); err != nil {
		return err
	}
	s.look()
	return s.begin()
}

func (s *DeviceSet) format(r poolRecord) error {
	p := s.pool
	if _, err := p.metadata.WriteAt(make([]byte, 4*kib), 0); err != nil {
		return err
	}
	if err := p.metadata.Sync(); err != nil {
		return err
	}
	size, err := p.data.Size()
	if err != nil {
		return err
	}
	return p.assemble(size, r.Given)
}
