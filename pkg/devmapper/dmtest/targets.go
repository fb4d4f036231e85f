package dmtest

import (
	"fmt"
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

// ParseFlakey reads what String prints.
func ParseFlakey(s string) (f Flakey, err error) {
	var dev string
	var up, down int64
	if _, err = fmt.Sscanf(s, "%s %d %d %d", &dev, &f.Start, &up, &down); err != nil {
		return Flakey{}, fmt.Errorf("flakey %q: %w", s, err)
	}
	if f.Dev, err = dm.ParseDevNo(dev); err != nil {
		return Flakey{}, fmt.Errorf("flakey %q: %w", s, err)
	}
	f.Up, f.Down = time.Duration(up)*time.Second, time.Duration(down)*time.Second
	if words := strings.Fields(s); len(words) > 4 {
		f.Features = words[5:]
		if n, err := strconv.Atoi(words[4]); err != nil || n != len(f.Features) {
			return Flakey{}, fmt.Errorf("flakey %q: want %s features", s, words[4])
		}
	}
	return f, nil
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

// LogWrites is a device that writes down on another one all that is written to
// it, with flushes and marks (drivers/md/dm-log-writes.c).
type LogWrites struct{ Dev, Log dm.DevNo }

// TargetType returns "log-writes".
func (LogWrites) TargetType() string { return "log-writes" }

// String prints l as the kernel reads it: <device> <log device>.
func (l LogWrites) String() string { return fmt.Sprintf("%s %s", l.Dev, l.Log) }

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
