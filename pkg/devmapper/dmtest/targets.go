package dmtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Flakey is a device that is well for Up and ill for Down, in turn
// (drivers/md/dm-flakey.c). While ill it does what its features say; without
// any, all I/O fails.
type Flakey struct {
	dm.Linear
	Up, Down time.Duration // whole seconds; one may be 0
	Features []string      // such as ErrorWrites
}

// Features of Flakey.
const (
	DropWrites  = "drop_writes"  // writes succeed and are forgotten
	ErrorWrites = "error_writes" // writes fail, reads work
)

// Well returns a Flakey that never fails.
func Well(below dm.Linear) Flakey { return Flakey{Linear: below, Up: time.Hour} }

// Ill returns a Flakey that always does what its features say.
func Ill(below dm.Linear, features ...string) Flakey {
	return Flakey{Linear: below, Down: time.Hour, Features: features}
}

// TargetType returns "flakey".
func (Flakey) TargetType() string { return "flakey" }

// String prints f as the kernel reads it:
// <device> <start> <up> <down> [<number of features> <feature>...].
func (f Flakey) String() string {
	s := fmt.Sprintf("%s %d %d", f.Linear, f.Up/time.Second, f.Down/time.Second)
	if len(f.Features) > 0 {
		s += fmt.Sprintf(" %d %s", len(f.Features), strings.Join(f.Features, " "))
	}
	return s
}

// ParseFlakey reads what String prints; the kernel prints a count of features
// even where there are none.
func ParseFlakey(s string) (f Flakey, err error) {
	words := strings.Fields(s)
	if len(words) > 4 {
		f.Features = slices.Clone(words[5:])
		if words[4] != strconv.Itoa(len(f.Features)) {
			return Flakey{}, fmt.Errorf("flakey %q: want %s features", s, words[4])
		}
		words = words[:4]
	}
	var up, down uint32
	err = scan("flakey", words, &f.Dev, &f.Start, &up, &down)
	f.Up, f.Down = time.Duration(up)*time.Second, time.Duration(down)*time.Second
	return f, err
}

// Delay is a device that answers late (drivers/md/dm-delay.c).
type Delay struct {
	dm.Linear
	By time.Duration // whole milliseconds
}

// TargetType returns "delay".
func (Delay) TargetType() string { return "delay" }

// String prints d as the kernel reads it: <device> <start> <milliseconds>.
func (d Delay) String() string { return fmt.Sprintf("%s %d", d.Linear, d.By.Milliseconds()) }

// ParseDelay reads what String prints.
func ParseDelay(s string) (d Delay, err error) {
	var ms uint32
	err = scan("delay", strings.Fields(s), &d.Dev, &d.Start, &ms)
	d.By = time.Duration(ms) * time.Millisecond
	return d, err
}

// LogWrites is a device that writes down on another one all that is written to
// it, with flushes and marks (drivers/md/dm-log-writes.c).
type LogWrites struct{ Dev, Log dm.DevNo }

// TargetType returns "log-writes".
func (LogWrites) TargetType() string { return "log-writes" }

// String prints l as the kernel reads it: <device> <log device>.
func (l LogWrites) String() string { return fmt.Sprintf("%s %s", l.Dev, l.Log) }

// ParseLogWrites reads what String prints.
func ParseLogWrites(s string) (l LogWrites, err error) {
	err = scan("log-writes", strings.Fields(s), &l.Dev, &l.Log)
	return l, err
}

// Dust is a device whose bad blocks fail to read until they are written again;
// they are set by messages (drivers/md/dm-dust.c).
type Dust struct {
	dm.Linear
	BlockSize dm.Sectors
}

// TargetType returns "dust".
func (Dust) TargetType() string { return "dust" }

// String prints d as the kernel reads it: <device> <start> <block size in bytes>.
func (d Dust) String() string { return fmt.Sprintf("%s %d", d.Linear, d.BlockSize.Bytes()) }

// ParseDust reads what String prints.
func ParseDust(s string) (d Dust, err error) {
	var bytes uint32
	err = scan("dust", strings.Fields(s), &d.Dev, &d.Start, &bytes)
	d.BlockSize = dm.SectorsIn(int64(bytes))
	return d, err
}

// scan reads one word into each destination: a *dm.DevNo, a *dm.Sectors or a
// *uint32.
func scan(target string, words []string, into ...any) error {
	if len(words) != len(into) {
		return fmt.Errorf("%s %q: want %d words", target, words, len(into))
	}
	for i, word := range words {
		var err error
		var n uint64
		switch to := into[i].(type) {
		case *dm.DevNo:
			*to, err = dm.ParseDevNo(word)
		case *dm.Sectors:
			n, err = strconv.ParseUint(word, 10, 64)
			*to = dm.Sectors(n)
		case *uint32:
			n, err = strconv.ParseUint(word, 10, 32)
			*to = uint32(n)
		}
		if err != nil {
			return fmt.Errorf("%s %q: %w", target, words, err)
		}
	}
	return nil
}
