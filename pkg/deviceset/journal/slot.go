package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// BlockSize is what everything in a slot is aligned to, in bytes: a disk writes
// that much as a whole or, if it tears it, the checksum tells.
const BlockSize = 4096

// A File is a slot, or the part of a device that is one. Offsets and lengths are
// multiples of BlockSize.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// A Header says whose slot it is.
type Header struct {
	Format     int    `json:"format"`
	Pool       string `json:"pool"`       // the pool's uuid
	Store      string `json:"store"`      // changes when a pool is adopted
	Machine    string `json:"machine"`    // where the store's owner runs
	Size       int64  `json:"size"`       // of a slot, in bytes
	Generation uint64 `json:"generation"` // the pool's transaction id, as the checkpoint has it
	Sequence   uint64 `json:"sequence"`   // the slot with the higher one is the newer
	Peer       uint64 `json:"peer"`       // the sequence that another copy of the journal had by then
	First      uint64 `json:"first"`      // number of the first frame behind the checkpoint
	Length     int    `json:"checkpoint"` // of the checkpoint, in bytes
	Sum        uint32 `json:"sum"`        // CRC-32C of the checkpoint
}

// Format is the number that this package writes into headers, and the only one
// that it reads.
const Format = 1

// Errors that are this package's own.
var (
	// ErrEmpty says that there is no header in either slot, only zeros.
	ErrEmpty = errors.New("the slots are empty")

	// ErrDamaged says that what was written and synced is not what is there.
	ErrDamaged = errors.New("the journal is damaged")

	// ErrFull says that a frame has no room until the slots are switched.
	ErrFull = errors.New("the slot is full")

	// ErrUnsure says that only reading anew can tell what is on the medium. Any other
	// error of a write leaves what was there before.
	ErrUnsure = errors.New("nobody knows what is on the medium")

	// ErrUnsupported says that a newer version wrote the slots.
	ErrUnsupported = errors.New("the journal has a format of a newer version")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Headers and frames begin with a line of fixed form. A newline ends it, and no
// JSON text holds one inside of a string, so what a caller stores in a frame can
// never look like the begin of another.
const (
	slotLine  = "dmthin slot  %016x %08x %08x\n"
	frameLine = "dmthin frame %016x %08x %08x\n"
	lineSize  = len("dmthin frame ") + 16 + 1 + 8 + 1 + 8 + 1
)

// seal puts a line before body and pads it to whole blocks with newlines. Only
// who knows salt can unseal it.
func seal(form string, number uint64, salt uint32, body []byte) []byte {
	sealed := make([]byte, 0, roundUp(lineSize+len(body)))
	sealed = fmt.Appendf(sealed, form, number, len(body), sum(form, number, salt, body))
	sealed = append(sealed, body...)
	for len(sealed) < cap(sealed) {
		sealed = append(sealed, '\n')
	}
	return sealed
}

// unseal reads what seal wrote, from the begin of b. A body that reaches beyond b
// is not there.
func unseal(form string, salt uint32, b []byte) (number uint64, body []byte, ok bool) {
	number, length, want, ok := parseLine(form, b)
	if !ok || length > len(b)-lineSize {
		return 0, nil, false
	}
	body = b[lineSize:][:length]
	return number, body, sum(form, number, salt, body) == want
}

func parseLine(form string, b []byte) (number uint64, length int, sum uint32, ok bool) {
	if len(b) < lineSize || string(b[:12]) != form[:12] {
		return 0, 0, 0, false // most blocks of a slot end here
	}
	line := string(b[:lineSize])
	if _, err := fmt.Sscanf(line, form, &number, &length, &sum); err != nil || length < 0 {
		return 0, 0, 0, false
	}
	return number, length, sum, fmt.Sprintf(form, number, length, sum) == line
}

// sum covers the number too: a frame is no other frame. The salt of a frame is
// its slot's header: what an earlier use of the slot has left is no frame at all.
// Numbers do not tell. Where a root was lost, its successor goes on with a number
// that frames may have which lie behind a gap.
func sum(form string, number uint64, salt uint32, body []byte) uint32 {
	head := fmt.Appendf(nil, "%s%016x%08x%08x", form, number, len(body), salt)
	return crc32.Update(checksum(head), castagnoli, body)
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func roundUp(n int) int { return (n + BlockSize - 1) / BlockSize * BlockSize }

// FrameSize returns how many bytes of a slot a frame with that body takes.
func FrameSize(body int) int64 { return int64(roundUp(lineSize + body)) }

// sealHeader returns h as block 0.
func sealHeader(h Header) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	block := seal(slotLine, h.Sequence, 0, text)
	if len(block) > BlockSize {
		return nil, fmt.Errorf("slot header has %d bytes", len(text))
	}
	return block, nil
}

// saltOf returns the salt of the frames behind a header.
func saltOf(header []byte) uint32 {
	_, _, sum, _ := parseLine(slotLine, header)
	return sum
}

// ParseHeader reads block 0 of a slot. Zeros, and anything else that is no header,
// is not ok.
func ParseHeader(block []byte) (h Header, ok bool, err error) {
	number, text, ok := unseal(slotLine, 0, block)
	if !ok {
		return Header{}, false, nil
	}
	if err := json.Unmarshal(text, &h); err != nil || h.Sequence != number {
		return Header{}, false, nil
	}
	if h.Format != Format {
		return Header{}, false, fmt.Errorf("%w: format %d, this version reads %d", ErrUnsupported, h.Format, Format)
	}
	return h, true, nil
}
