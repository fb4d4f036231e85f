package deviceset

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// labelID is the thin device with the second copy of the journal. It is the first
// that a pool gets and is written in full at once, so it lies at the begin of the
// data device, needs no space later, and can be read without the pool.
const labelID dm.DeviceID = 0

// A label is thin device 0, held open so that nobody else can: the kernel lets go
// of it when the process dies, however that happens.
type label struct {
	Block
	device dm.Device
	slots  *journal.Slots
}

// A region is a part of a Block.
type region struct {
	block io.ReaderAt
	dev   interface {
		io.WriterAt
		Sync() error
	}
	from, size int64
}

func (r region) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > r.size {
		return 0, io.ErrUnexpectedEOF
	}
	return r.block.ReadAt(b, r.from+at)
}

func (r region) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > r.size {
		return 0, io.ErrShortWrite
	}
	return r.dev.WriteAt(b, r.from+at)
}

func (r region) Sync() error { return r.dev.Sync() }

// halves returns the two slots of a label of that size that begins with b.
func halves(b Block, size int64) *journal.Slots {
	half := size / 2
	return journal.New([2]journal.File{region{b, b, 0, half}, region{b, b, half, half}}, half)
}

// openLabel activates the label and takes it for this process.
func (s *DeviceSet) openLabel(r poolRecord) (*label, error) {
	l, err := s.takeLabel(r)
	if err != nil && !errors.Is(err, ErrInUse) {
		_ = s.pool.thin(labelID).Remove() // EBUSY, or a pool that failed
	}
	return l, err
}

func (s *DeviceSet) takeLabel(r poolRecord) (*label, error) {
	info, err := s.pool.activate(labelID, r.Label, false)
	if err != nil {
		return nil, fmt.Errorf("%w: activate label: %w", ErrUnavailable, err)
	}
	b, err := s.machine.OpenDevice(info, true)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: the label of pool %s is open", ErrInUse, r.UUID)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: open label: %w", ErrUnavailable, err)
	}
	return &label{Block: b, device: s.pool.thin(labelID), slots: halves(b, r.Label)}, nil
}

// close lets go of the label. Where the device cannot be removed it stays, as
// after a kill.
func (l *label) close() error {
	err := l.Block.Close()
	_ = l.device.Remove() // EBUSY, or a pool that failed
	return err
}

// labelHeaders returns the headers of the label that a data device begins with;
// none if it begins with anything else. The first slot's header tells where the
// second is. Without it, that is half bytes from the begin, or where some label
// would have it.
func labelHeaders(data io.ReaderAt, dataSize, half int64) (found []journal.Header, err error) {
	block := make([]byte, journal.BlockSize)
	look := func(at int64) error {
		if at+int64(len(block)) > dataSize {
			return nil
		}
		if _, err := data.ReadAt(block, at); err != nil {
			return fmt.Errorf("read label: %w", err)
		}
		h, ok, err := journal.ParseHeader(block)
		if ok && (at == 0 || at == h.Size) {
			found = append(found, h)
		}
		return err
	}
	if err := look(0); err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return found, look(found[0].Size)
	}
	if half > 0 {
		err = look(half)
	}
	for at := smallestLabel / 2; at <= largestLabel/2 && len(found) == 0 && err == nil; at += labelStep {
		err = look(at)
	}
	return found, err
}

// labelStep divides half of any label that is made by rule.
const labelStep = mib / 2

// readLabelOf reads the label straight from the data device, for a store whose own
// copy is damaged. It must be whole, and of that store.
func (s *DeviceSet) readLabelOf(want journal.Header) (*reading, error) {
	data, err := s.openData()
	if err != nil {
		return nil, err
	}
	defer func() { _ = data.Close() }() // it was only read
	r, err := readRawLabel(data)
	switch {
	case err != nil:
		return nil, err
	case r.head.Pool != want.Pool || r.head.Store != want.Store:
		return nil, fmt.Errorf("%w: it is of pool %s and store %s", ErrForeign, r.head.Pool, r.head.Store)
	case r.gap || r.head.Sequence < want.Sequence:
		return nil, fmt.Errorf("%w: it is older", journal.ErrDamaged)
	}
	return r, nil
}

func readRawLabel(data Block) (*reading, error) {
	size, err := data.Size()
	if err != nil {
		return nil, err
	}
	heads, err := labelHeaders(data, size, 0)
	if err != nil {
		return nil, err
	}
	if len(heads) == 0 {
		return nil, fmt.Errorf("%w: the data device does not begin with a label", journal.ErrEmpty)
	}
	return readSlots(halves(data, 2*heads[0].Size))
}

// checkData refuses a data device that does not begin with the label of this pool.
func (s *DeviceSet) checkData(data Block, r poolRecord) error {
	labelled, err := s.hasLabel(data, r)
	if err == nil && !labelled {
		err = fmt.Errorf("%w: data device %s does not begin with the label of pool %s", ErrForeign, r.Data, r.UUID)
	}
	return err
}

// hasLabel reports whether a data device begins with the label of this pool, and
// refuses another pool's.
func (s *DeviceSet) hasLabel(data Block, r poolRecord) (bool, error) {
	size, err := data.Size()
	if err != nil {
		return false, err
	}
	heads, err := labelHeaders(data, size, r.Label/2)
	if err != nil || len(heads) == 0 {
		return false, err
	}
	for _, h := range heads {
		if h.Pool == r.UUID {
			return true, nil
		}
	}
	return false, fmt.Errorf("%w: data device %s has the label of pool %s, not of %s", ErrForeign, r.Data, heads[0].Pool, r.UUID)
}

// writeLabel writes all of a new label, in order, and makes sure that it lies at
// the begin of the data device.
func (s *DeviceSet) writeLabel(r poolRecord, data Block, first *catalog) error {
	zeros := make([]byte, min(r.Label, mib))
	for at := int64(0); at < r.Label; at += int64(len(zeros)) {
		if _, err := s.label.WriteAt(zeros[:min(int64(len(zeros)), r.Label-at)], at); err != nil {
			return fmt.Errorf("write label: %w", err)
		}
	}
	text, err := first.checkpoint()
	if err != nil {
		return err
	}
	head := s.store.head
	head.Pool, head.Generation = r.UUID, first.Generation
	if err := s.label.slots.Switch(head, text, s.store.root.Next()); err != nil {
		return fmt.Errorf("write label: %w", err)
	}
	if _, err := s.pool.Commit(); err != nil {
		return err
	}
	return s.checkData(data, r)
}
