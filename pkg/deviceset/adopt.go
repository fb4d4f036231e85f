package deviceset

import (
	"errors"
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// An Adoption is what a new owner makes of a pool.
type Adoption struct {
	PoolUUID    string
	PoolSecret  string
	From        string // which copy of the journal: "root" or "label"
	Devices     []Device
	Quarantined []Quarantined // thin devices that nobody can name
	Lost        []string      // devices on record that the pool has not
	Deletions   []string      // devices whose deletion had begun: they are in quarantine
	Done        bool          // it has been carried out, rather than shown
}

// A Quarantined thin device is kept as it is: AdoptDevice gives it a name.
type Quarantined struct {
	ID     dm.DeviceID
	Name   string // that it may have had
	Mapped int64  // bytes
	Why    string
}

// Adopt makes the pool that the options name that of this root: after the root
// directory was lost, or put back to an earlier state, or the disks were. It shows
// what would become of each device, and with yes does it.
//
// It goes by the newest whole copy of the journal, the root's or the label's, and
// believes of it what the pool confirms: a device counts if its thin device is there
// and was born at the same time. Its size is the one on record, or the end of what
// it maps, if that is more. Nothing is deleted, and nothing adopted is ever
// formatted. The pool gets a new owner's mark, so that the root it belonged to
// refuses it from then on.
func Adopt(root string, options []string, yes bool) (*Adoption, error) {
	m, err := ThisMachine()
	if err != nil {
		return nil, err
	}
	a, err := AdoptOn(m, root, options, yes)
	return a, errors.Join(err, m.Close())
}

// AdoptOn is Adopt on any machine.
func AdoptOn(m Machine, root string, options []string, yes bool) (*Adoption, error) {
	s, err := prepare(m, root, options, nil, nil)
	if err != nil {
		return nil, err
	}
	return s.adopt(yes)
}

func (s *DeviceSet) adopt(yes bool) (*Adoption, error) {
	a, err := s.adoptPool(yes)
	if s.store != nil && s.store.writable() == nil {
		err = errors.Join(err, s.store.flush())
	}
	return a, failed("adopt the pool for", s.root, errors.Join(err, s.close()))
}

func (s *DeviceSet) adoptPool(yes bool) (a *Adoption, err error) {
	if err := s.machine.MakeRoot(s.root, s.owner.uid, s.owner.gid); err != nil {
		return nil, err
	}
	if err := s.lockRoot(); err != nil {
		return nil, err
	}
	source, from, err := s.newest()
	if err != nil {
		return nil, err
	}
	if source.catalog != nil && !source.catalog.Pool.Made {
		return nil, fmt.Errorf("%w: the pool was never finished: open it, and that goes on", ErrInvalid)
	}
	r, err := s.recordOf(source)
	if err != nil {
		return nil, err
	}
	s.newPool(r)
	if err := s.assemble(r); err != nil {
		return nil, err
	}
	if s.label, err = s.openLabel(r); err != nil {
		return nil, err
	}
	status, err := s.pool.Commit()
	if err != nil {
		return nil, err
	}
	devices, err := s.detailsOf()
	if err != nil {
		return nil, err
	}
	c, a := adopted(r, source.catalog, devices, s.pool.blockSize, s.decided)
	a.PoolUUID, a.PoolSecret, a.From = r.UUID, r.secret(), from
	c.Generation = status.TransactionID
	if yes {
		err = s.own(c, source)
		a.Done = err == nil
	}
	return a, err
}

// newest returns the copy of the journal to go by.
func (s *DeviceSet) newest() (*reading, string, error) {
	root, rootErr := s.readRoot()
	data, err := s.openData()
	if err != nil {
		return nil, "", err
	}
	copied, labelErr := readRawLabel(data)
	if err := data.Close(); err != nil {
		return nil, "", err
	}
	rootWhole, labelWhole := rootErr == nil, labelErr == nil
	if rootWhole && labelWhole && root.head.Pool != copied.head.Pool {
		return nil, "", fmt.Errorf("%w: this root is that of pool %s, and the data device has pool %s: adopt it for a root of its own", ErrForeign, root.head.Pool, copied.head.Pool)
	}
	sameStore := rootWhole && labelWhole && root.head.Store == copied.head.Store && root.head.Pool == copied.head.Pool
	switch {
	case labelWhole && (!rootWhole || !sameStore || copied.last > root.last):
		return copied, "label", nil
	case rootWhole:
		return root, "root", nil
	case copied != nil:
		return copied, "label", nil // its header alone: nothing has a name any more
	}
	return nil, "", fmt.Errorf("%w: neither the root nor the label has a journal: %w; %w", ErrNoPool, rootErr, labelErr)
}

// recordOf says what the pool is: as on record, but where the options say otherwise
// now, such as after its disks have got other names.
func (s *DeviceSet) recordOf(source *reading) (poolRecord, error) {
	kind := s.config.kind()
	r := poolRecord{UUID: source.head.Pool, Kind: kind, Label: 2 * source.head.Size, Made: true}
	if source.catalog != nil {
		r = source.catalog.Pool
	}
	r.Kind = kind
	switch kind {
	case poolLoop:
		r.Data, r.Metadata = s.loopData(), s.loopMetadata()
	case poolDevices:
		r.Data, r.Metadata = s.config.DataDevice, s.config.MetadataDevice
	case poolExisting:
		r.Data, r.Metadata, r.Given = s.config.ThinPool, "", 0
		t, err := s.existingTable()
		r.BlockSize = t.BlockSize
		return r, err
	}
	return r, s.measureMetadata(&r)
}

// measureMetadata asks the metadata for what a record may lack or be late with.
func (s *DeviceSet) measureMetadata(r *poolRecord) error {
	disk, err := s.openMetadata(r.Kind)
	if err != nil {
		return err
	}
	m, err := s.machine.Metadata(disk.Dev())
	if err != nil {
		return errors.Join(err, disk.Close())
	}
	super, err := m.Superblock()
	r.BlockSize = super.BlockSize
	r.Given = max(r.Given, dm.Sectors(super.Metadata.Total)*dm.MetadataBlockSize)
	return errors.Join(err, m.Close(), disk.Close())
}

func (s *DeviceSet) openMetadata(kind poolKind) (Disk, error) {
	if kind == poolLoop {
		return s.machine.OpenFile(s.loopMetadata(), 0, Zeros)
	}
	return s.machine.OpenDisk(s.config.MetadataDevice)
}

// A thinDevice is what the pool knows of a thin device.
type thinDevice struct {
	thinmeta.Device
	extent thinmeta.Blocks
}

func (s *DeviceSet) detailsOf() (found []thinDevice, err error) {
	m, err := s.machine.Metadata(s.pool.metaDev)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }() // it was only read
	devices, err := m.Devices()
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		if d.ID == labelID {
			continue
		}
		extent, err := m.Extent(d.ID)
		if err != nil {
			return nil, err
		}
		found = append(found, thinDevice{d, extent})
	}
	return found, nil
}

// own writes the new journal, in both places, and raises the generation.
func (s *DeviceSet) own(c *catalog, source *reading) error {
	half := c.Pool.Label / 2
	root, err := s.ownSlots(half)
	if err != nil {
		return err
	}
	root.Continue(source.head.Sequence, source.last+1)
	if _, err := s.label.slots.Read(); err != nil && !journal.IsDamage(err) {
		return err
	}
	root.Continue(s.label.slots.Header().Sequence, 0)
	s.store = newStore(root)
	s.store.catalog = c
	s.store.head = journal.Header{Pool: c.Pool.UUID, Store: s.machine.NewUUID(), Machine: s.machine.ID()}
	return s.begin()
}

// ownSlots returns the root's slots, made anew only where there is nothing that
// could still be read.
func (s *DeviceSet) ownSlots(half int64) (*journal.Slots, error) {
	if s.store != nil && s.store.root.Size() == half {
		return s.store.root, nil
	}
	s.closeSlots()
	if err := s.machine.MakeSlots(s.root, half); err != nil {
		return nil, err
	}
	slots, err := s.machine.OpenSlots(s.root)
	if err != nil {
		return nil, err
	}
	s.slots = slots
	return journal.New([2]journal.File{slots[0], slots[1]}, half), nil
}
