package journal

import (
	"errors"
	"fmt"
	"slices"
)

// Slots are the two slots of a journal. One goroutine at a time may use them.
type Slots struct {
	files [2]File
	size  int64 // of each, in bytes
	now   int   // the newer one, to which frames are appended
	head  Header
	salt  uint32 // of its frames
	next  uint64 // number of the next frame
	end   int64  // where it goes
	fresh bool   // the newer slot was written by this Slots, not found
}

// New returns slots of size bytes each, a multiple of BlockSize. What is in them
// counts for nothing until Read; the first of them is written first.
func New(files [2]File, size int64) *Slots { return &Slots{files: files, size: size, now: 1} }

// Content is what slots hold.
type Content struct {
	Header     Header
	Checkpoint []byte
	Frames     []Frame // in order, without a gap
	// Gap says that behind the last frame there is one with a higher number. Where
	// each frame was synced before the next was written, that is damage.
	Gap bool
}

// A Frame is what was committed at once.
type Frame struct {
	Number uint64
	Body   []byte
}

// Last returns the number of the last frame, or of the last one before the
// checkpoint.
func (c *Content) Last() uint64 { return c.Header.First - 1 + uint64(len(c.Frames)) }

// Read returns what the newer slot holds. Without a header in either slot it is
// ErrEmpty if both begin with zeros, else ErrDamaged, which is also what a
// checkpoint that differs from its checksum is; then the header alone is returned.
func (s *Slots) Read() (*Content, error) {
	var blocks [2][BlockSize]byte
	var heads [2]Header
	var found [2]bool
	blank := true
	for i := range s.files {
		block := blocks[i][:]
		if _, err := s.files[i].ReadAt(block, 0); err != nil {
			return nil, fmt.Errorf("slot %d: %w", i, err)
		}
		var err error
		if heads[i], found[i], err = ParseHeader(block); err != nil {
			return nil, fmt.Errorf("slot %d: %w", i, err)
		}
		blank = blank && allZero(block)
	}
	switch {
	case found[0] && (!found[1] || heads[0].Sequence > heads[1].Sequence):
		return s.read(0, heads[0], saltOf(blocks[0][:]))
	case found[1]:
		return s.read(1, heads[1], saltOf(blocks[1][:]))
	case blank:
		return nil, ErrEmpty
	}
	return nil, fmt.Errorf("%w: neither slot has a header", ErrDamaged)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func (s *Slots) read(slot int, head Header, salt uint32) (*Content, error) {
	s.now, s.head, s.salt, s.fresh = slot, head, salt, false
	if head.Size != s.size || head.Length < 0 || int64(head.Length) > s.size-BlockSize || head.First == 0 {
		return &Content{Header: head}, fmt.Errorf("%w: slot %d: a slot of %d bytes with a checkpoint of %d, in %d bytes", ErrDamaged, slot, head.Size, head.Length, s.size)
	}
	length := roundUp(head.Length)
	c := &Content{Header: head, Checkpoint: make([]byte, length)}
	if length > 0 {
		if _, err := s.files[slot].ReadAt(c.Checkpoint, BlockSize); err != nil {
			return nil, fmt.Errorf("slot %d: %w", slot, err)
		}
	}
	c.Checkpoint = c.Checkpoint[:head.Length]
	if checksum(c.Checkpoint) != head.Sum {
		return &Content{Header: head}, fmt.Errorf("%w: slot %d: the checkpoint differs from its checksum", ErrDamaged, slot)
	}
	s.next = head.First
	s.end = BlockSize + int64(length)
	return c, s.readFrames(c)
}

// gapSearch is how far behind the last frame another one is looked for, in bytes: far
// enough for a single frame that is damaged, and not the whole slot at each start.
// What lies farther is missed here, and noticed by whoever compares two copies.
const gapSearch = 1 << 20

// readFrames reads as far as frames follow each other, and then looks whether one
// lies behind a gap.
func (s *Slots) readFrames(c *Content) error {
	r := reader{file: s.files[s.now], size: s.size, salt: s.salt}
	for at := s.end; at < min(s.size, s.end+gapSearch); {
		number, body, ok, err := r.frame(at)
		switch {
		case err != nil:
			return fmt.Errorf("slot %d: %w", s.now, err)
		case !ok:
			at += BlockSize
		case number != s.next || at != s.end:
			c.Gap = true
			return nil
		default:
			c.Frames = append(c.Frames, Frame{number, slices.Clone(body)})
			s.next++
			s.end += FrameSize(len(body))
			at = s.end
		}
	}
	return nil
}

// A reader reads a slot by large pieces.
type reader struct {
	file  File
	size  int64
	salt  uint32
	piece []byte
	at    int64 // of piece
}

const pieceSize = 64 * BlockSize

// frame returns the frame that begins at a block, if one does. Its body is that
// until the next call.
func (r *reader) frame(at int64) (number uint64, body []byte, ok bool, err error) {
	b, err := r.bytes(at, BlockSize)
	if err != nil {
		return 0, nil, false, err
	}
	_, length, _, ok := parseLine(frameLine, b)
	whole := FrameSize(length)
	if !ok || whole > r.size-at {
		return 0, nil, false, nil
	}
	if b, err = r.bytes(at, whole); err != nil {
		return 0, nil, false, err
	}
	number, body, ok = unseal(frameLine, r.salt, b)
	return number, body, ok, nil
}

func (r *reader) bytes(at, length int64) ([]byte, error) {
	if at < r.at || at+length > r.at+int64(len(r.piece)) {
		want := min(max(length, pieceSize), r.size-at)
		r.at, r.piece = at, slices.Grow(r.piece[:0], int(want))[:want]
		if _, err := r.file.ReadAt(r.piece, at); err != nil {
			r.piece = r.piece[:0]
			return nil, err
		}
	}
	return r.piece[at-r.at:][:length], nil
}

// Append writes a frame behind the last one, without a sync. It is ErrFull, with
// nothing written, if there is no room, or if the slot is one that Read found:
// what a crashed writer left behind the last frame is unknown, so nothing is ever
// appended to it.
func (s *Slots) Append(body []byte) error {
	if !s.fresh || s.end+FrameSize(len(body)) > s.size {
		return ErrFull
	}
	if _, err := s.files[s.now].WriteAt(seal(frameLine, s.next, s.salt, body), s.end); err != nil {
		return err
	}
	s.next++
	s.end += FrameSize(len(body))
	return nil
}

// Sync makes durable what was appended, or else is ErrUnsure.
func (s *Slots) Sync() error { return s.sync(s.now) }

func (s *Slots) sync(slot int) error { return unsure(s.files[slot].Sync()) }

func unsure(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsure, err)
	}
	return nil
}

// Switch makes the other slot the newer one, with a checkpoint of all frames
// before number first. It is durable on return. Killed in between, or after
// ErrUnsure, Read finds the old slot as it was, or the new one; after any other
// error the old one, to which frames can still be appended.
func (s *Slots) Switch(h Header, checkpoint []byte, first uint64) error {
	if need := int64(roundUp(len(checkpoint))) + BlockSize; need > s.size {
		return fmt.Errorf("%w: a checkpoint of %d bytes in a slot of %d", ErrFull, len(checkpoint), s.size)
	}
	other := 1 - s.now
	h.Format, h.Size, h.Sequence, h.First = Format, s.size, s.head.Sequence+1, first
	h.Length, h.Sum = len(checkpoint), checksum(checkpoint)
	block, err := sealHeader(h)
	if err != nil {
		return err
	}
	if !s.fresh { // whoever wrote the slot may have been killed before its sync
		if err := s.sync(s.now); err != nil {
			return err
		}
	}
	if err := s.write(other, checkpoint, block); err != nil {
		return err
	}
	s.now, s.head, s.salt, s.next, s.fresh = other, h, saltOf(block), first, true
	s.end = BlockSize + int64(roundUp(len(checkpoint)))
	return nil
}

// write makes the checkpoint durable before the header that vouches for it.
func (s *Slots) write(slot int, checkpoint, header []byte) error {
	if padded := roundUp(len(checkpoint)); padded > 0 {
		b := append(make([]byte, 0, padded), checkpoint...)
		for len(b) < padded {
			b = append(b, '\n')
		}
		if _, err := s.files[slot].WriteAt(b, BlockSize); err != nil {
			return err
		}
		if err := s.sync(slot); err != nil {
			return err
		}
	}
	if _, err := s.files[slot].WriteAt(header, 0); err != nil {
		return unsure(err)
	}
	return s.sync(slot)
}

// Continue makes the next Switch the successor of another journal's: with a higher
// sequence, and no frame number used again.
func (s *Slots) Continue(sequence, next uint64) {
	s.head.Sequence, s.next = max(s.head.Sequence, sequence), max(s.next, next)
}

// Header returns the header of the newer slot.
func (s *Slots) Header() Header { return s.head }

// Next returns the number of the next frame.
func (s *Slots) Next() uint64 { return s.next }

// Room returns how many bytes of the newer slot are free for frames.
func (s *Slots) Room() int64 {
	if !s.fresh {
		return 0
	}
	return s.size - s.end
}

// Size returns the length of a slot, in bytes.
func (s *Slots) Size() int64 { return s.size }

// IsDamage reports whether err says that what is stored is not what was written,
// as opposed to an error of the medium.
func IsDamage(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrEmpty) }
