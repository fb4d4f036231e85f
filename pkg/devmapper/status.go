package devmapper

import (
	"fmt"
	"strings"
)

// A PoolMode is what a pool is able to do, best first
// (drivers/md/dm-thin.c: enum pool_mode).
type PoolMode int

// The modes. A status line does not tell the kernel's out-of-metadata mode from
// read-only: see PoolStatus.OutOfMetadata.
const (
	PoolWrite          PoolMode = iota // everything works
	PoolOutOfDataSpace                 // no new blocks; metadata still changes
	PoolReadOnly                       // metadata does not change; I/O to what is mapped works
	PoolFail                           // all I/O fails until the metadata is repaired
	PoolError                          // the kernel could not read the figures of its status line
)

var poolModes = []string{"rw", "out_of_data_space", "ro", "Fail", "Error"}

// String prints m as status lines do.
func (m PoolMode) String() string { return poolModes[m] }

// Usage counts blocks.
type Usage struct{ Used, Total uint64 }

// Free returns how many blocks are not in use.
func (u Usage) Free() uint64 { return u.Total - min(u.Used, u.Total) }

// A Passdown is what a pool does with a discard of a thin device.
type Passdown int

// What becomes of a discard.
const (
	DiscardPassdown   Passdown = iota // frees blocks and discards them on the data device
	NoDiscardPassdown                 // frees blocks
	IgnoreDiscard                     // does nothing
)

var passdowns = []string{"discard_passdown", "no_discard_passdown", "ignore_discard"}

// String prints p as status lines do.
func (p Passdown) String() string { return passdowns[p] }

// PoolStatus is the status line of a thin-pool (drivers/md/dm-thin.c:
// pool_status). In the modes PoolFail and PoolError the kernel gives no
// figures, and every other field is zero without meaning anything: ask Known.
type PoolStatus struct {
	Mode             PoolMode
	TransactionID    uint64
	Metadata         Usage  // in blocks of MetadataBlockSize; Used includes a reserve of up to 4096 blocks
	Data             Usage  // in blocks of the pool's block size
	HeldRoot         uint64 // metadata block of the held snapshot's superblock; 0 if none is held
	Discard          Passdown
	ErrorIfNoSpace   bool
	NeedsCheck       bool   // the metadata must be checked offline before it may change again
	MetadataLowWater uint64 // an event is raised when fewer metadata blocks are free; 0 from kernels that do not tell
}

// Known reports whether the status holds figures at all.
func (s PoolStatus) Known() bool { return s.Mode < PoolFail }

// Commits reports whether a change that the pool accepts also becomes durable.
func (s PoolStatus) Commits() bool { return s.Mode <= PoolOutOfDataSpace && !s.NeedsCheck }

// OutOfMetadata reports whether the pool is read-only for want of metadata
// space alone: then growing the metadata device makes it writable again. Reloading
// its table without that does so too, until the next commit finds nothing free.
func (s PoolStatus) OutOfMetadata() bool {
	return s.Mode == PoolReadOnly && !s.NeedsCheck && s.Metadata.Free() == 0
}

// String prints s as the kernel does.
func (s PoolStatus) String() string {
	if !s.Known() {
		return s.Mode.String()
	}
	held, full, check := "-", "queue_if_no_space", "-"
	if s.HeldRoot != 0 {
		held = fmt.Sprint(s.HeldRoot)
	}
	if s.ErrorIfNoSpace {
		full = "error_if_no_space"
	}
	if s.NeedsCheck {
		check = "needs_check"
	}
	return fmt.Sprintf("%d %d/%d %d/%d %s %s %s %s %s %d", s.TransactionID,
		s.Metadata.Used, s.Metadata.Total, s.Data.Used, s.Data.Total,
		held, s.Mode, s.Discard, full, check, s.MetadataLowWater)
}

// ParsePoolStatus reads what String prints. Fields that a newer kernel adds at
// the end are passed over.
func ParsePoolStatus(text string) (PoolStatus, error) {
	switch mode := strings.TrimSpace(text); mode {
	case PoolFail.String():
		return PoolStatus{Mode: PoolFail}, nil
	case PoolError.String():
		return PoolStatus{Mode: PoolError}, nil
	}
	w := words(text)
	s := PoolStatus{
		TransactionID: w.number(),
		Metadata:      Usage{w.numberBefore("/"), w.number()},
		Data:          Usage{w.numberBefore("/"), w.number()},
		HeldRoot:      w.numberOrDash(),
	}
	s.Mode = PoolMode(w.index(poolModes[:PoolFail]))
	s.Discard = Passdown(w.index(passdowns))
	s.ErrorIfNoSpace = w.oneOf("queue_if_no_space", "error_if_no_space") == "error_if_no_space"
	if w.more() { // older kernels end here
		s.NeedsCheck = w.oneOf("-", "needs_check") == "needs_check"
	}
	if w.more() {
		s.MetadataLowWater = w.number()
	}
	w.rest = nil
	if err := w.end("pool status"); err != nil {
		return PoolStatus{}, fmt.Errorf("%w in %q", err, text)
	}
	return s, nil
}

// ThinStatus is the status line of a thin device (drivers/md/dm-thin.c:
// thin_status).
type ThinStatus struct {
	State   ThinState
	Mapped  Sectors // how much of the device has blocks of the pool, shared ones included
	Highest Sectors // the last sector that has; meaningless where Mapped is 0
}

// A ThinState tells whether a thin's status holds figures.
type ThinState int

// The states.
const (
	ThinOK     ThinState = iota
	ThinClosed           // the thin is not open in the pool
	ThinFail             // the pool failed
	ThinError            // the kernel could not read the figures
)

var thinStates = []string{"", "-", "Fail", "Error"}

// String prints s as the kernel does: <mapped sectors> <highest mapped sector>.
func (s ThinStatus) String() string {
	switch {
	case s.State != ThinOK:
		return thinStates[s.State]
	case s.Mapped == 0:
		return "0 -"
	}
	return fmt.Sprintf("%d %d", s.Mapped, s.Highest)
}

// ParseThinStatus reads what String prints.
func ParseThinStatus(text string) (ThinStatus, error) {
	for state, word := range thinStates[1:] {
		if strings.TrimSpace(text) == word {
			return ThinStatus{State: ThinState(state + 1)}, nil
		}
	}
	w := words(text)
	s := ThinStatus{Mapped: Sectors(w.number()), Highest: Sectors(w.numberOrDash())}
	if err := w.end("thin status"); err != nil {
		return ThinStatus{}, fmt.Errorf("%w in %q", err, text)
	}
	return s, nil
}
