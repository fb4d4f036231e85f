package devmapper

import (
	"fmt"
	"strings"
)

// Block sizes that a pool accepts: a multiple of the smallest, fixed for the
// pool's life (drivers/md/dm-thin.c: DATA_DEV_BLOCK_SIZE_*_SECTORS).
const (
	MinBlockSize Sectors = 64 << 10 / SectorSize
	MaxBlockSize Sectors = 1 << 30 / SectorSize
)

// MetadataBlockSize is the length of one metadata block, 4096 bytes
// (drivers/md/dm-thin-metadata.h: THIN_METADATA_BLOCK_SIZE).
const MetadataBlockSize Sectors = 8

// MaxMetadataSize is how much of a metadata device a pool can use; it warns
// beyond 16 GiB (drivers/md/dm-thin-metadata.h: THIN_METADATA_MAX_SECTORS).
const MaxMetadataSize = 255 * (1<<14 - 64) * MetadataBlockSize

// ThinPool is the target that hands out blocks of Data to thin devices and
// keeps account of them in Metadata (drivers/md/dm-thin.c: pool_ctr). Loading
// it formats a metadata device that begins with 4096 zero bytes.
type ThinPool struct {
	Metadata  DevNo
	Data      DevNo
	BlockSize Sectors // MinBlockSize to MaxBlockSize
	LowWater  uint64  // an event is raised when this many data blocks or fewer are free

	SkipBlockZeroing  bool // a new block shows what its last owner wrote
	IgnoreDiscard     bool // discards free no blocks
	NoDiscardPassdown bool // discards free blocks but do not reach the data device
	ReadOnly          bool // metadata is not changed
	ErrorIfNoSpace    bool // writes fail at once when the pool is full; otherwise they wait
}

// TargetType returns "thin-pool".
func (ThinPool) TargetType() string { return "thin-pool" }

// String prints p as the kernel does:
// <metadata> <data> <block size> <low water> <number of features> [<feature>...].
func (p ThinPool) String() string {
	var features []string
	for _, f := range p.features() {
		if *f.on {
			features = append(features, f.name)
		}
	}
	text := fmt.Sprintf("%s %s %d %d %d", p.Metadata, p.Data, p.BlockSize, p.LowWater, len(features))
	return strings.Join(append([]string{text}, features...), " ")
}

type feature struct {
	name string
	on   *bool
}

// features names p's switches, in the kernel's order.
func (p *ThinPool) features() []feature {
	return []feature{
		{"skip_block_zeroing", &p.SkipBlockZeroing},
		{"ignore_discard", &p.IgnoreDiscard},
		{"no_discard_passdown", &p.NoDiscardPassdown},
		{"read_only", &p.ReadOnly},
		{"error_if_no_space", &p.ErrorIfNoSpace},
	}
}

// ParseThinPool reads what String prints; the features may be left out.
func ParseThinPool(s string) (ThinPool, error) {
	w := words(s)
	p := ThinPool{
		Metadata:  w.devNo(),
		Data:      w.devNo(),
		BlockSize: Sectors(w.number()),
		LowWater:  w.number(),
	}
	if !w.more() {
		return p, w.end("thin-pool")
	}
	count := w.number()
	for ; count > 0 && w.err == nil; count-- {
		p.enable(w)
	}
	return p, w.end("thin-pool")
}

func (p *ThinPool) enable(w *fields) {
	name := w.word()
	for _, f := range p.features() {
		if f.name == name {
			*f.on = true
			return
		}
	}
	if w.err == nil {
		w.err = fmt.Errorf("unknown feature %q", name)
	}
}

// Thin is a thin device of a pool (drivers/md/dm-thin.c: thin_ctr). Its size is
// that of its segment: the pool does not keep it.
type Thin struct {
	Pool   DevNo
	ID     DeviceID
	Origin DevNo // a read-only device that shows through where nothing was written; 0 for none
}

// TargetType returns "thin".
func (Thin) TargetType() string { return "thin" }

// String prints t as the kernel reads it: <pool> <id> [<external origin>].
func (t Thin) String() string {
	text := fmt.Sprintf("%s %d", t.Pool, t.ID)
	if t.Origin != 0 {
		text += " " + t.Origin.String()
	}
	return text
}

// ParseThin reads what String prints.
func ParseThin(s string) (Thin, error) {
	w := words(s)
	t := Thin{Pool: w.devNo(), ID: w.deviceID()}
	if w.more() {
		t.Origin = w.devNo()
	}
	return t, w.end("thin")
}
