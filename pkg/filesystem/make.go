package filesystem

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// What Make refuses to do.
var (
	// ErrTooSmall: the device is smaller than MinSize.
	ErrTooSmall = errors.New("device too small")
	// ErrNotBlank: something is on the device already.
	ErrNotBlank = errors.New("device not blank")
)

// MakeOptions say how a file system is made.
type MakeOptions struct {
	Args  []string // for mkfs, behind ours
	UUID  string   // "" for a new one
	Label string   // at most 16 bytes for Ext4, 12 for XFS

	// Prezeroed promises that the device reads as zeros where it was never
	// written, as a thin device does. mkfs.ext4 1.46.6 or newer then writes no
	// zeros itself.
	Prezeroed bool

	// Overwrite makes the file system over what is there, whatever it is.
	Overwrite bool
}

// Make makes a file system of type t that fills a device. One that is not known
// to be blank is ErrNotBlank, which keeps the reason of Probe. A context that
// ends, ends the tool; after that and after any other error of the tool, anything
// may be on the device.
func Make(ctx context.Context, device string, t Type, o MakeOptions) error {
	err := o.check(device, t)
	if err == nil {
		err = run(ctx, "mkfs."+string(t), o.arguments(device, t)...)
	}
	if err != nil {
		return fmt.Errorf("make %s on %s: %w", t, device, err)
	}
	return nil
}

// check refuses what would do harm or would fail halfway.
func (o MakeOptions) check(device string, t Type) error {
	if _, err := ParseType(string(t)); err != nil {
		return err
	}
	// mke2fs cuts a label that is too long, with a warning that nobody sees.
	if longest := map[Type]int{Ext4: 16, XFS: 12}[t]; len(o.Label) > longest {
		return fmt.Errorf("label %q has more than %d bytes", o.Label, longest)
	}
	size, err := deviceSize(device)
	switch {
	case err != nil:
		return err
	case size < t.MinSize():
		return fmt.Errorf("%w: %d bytes, %s needs %d", ErrTooSmall, size, t, t.MinSize())
	case o.Overwrite:
		return nil
	}
	return mustBeBlank(device)
}

func mustBeBlank(device string) error {
	switch info, err := ProbeDevice(device); {
	case errors.Is(err, ErrBlank):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotBlank, err)
	default:
		return fmt.Errorf("%w: %s %s", ErrNotBlank, info.Type, info.UUID)
	}
}

// arguments returns those of mkfs.
func (o MakeOptions) arguments(device string, t Type) []string {
	var args []string
	rest := o.Args
	switch t {
	case Ext4:
		args, rest = o.ext4(), withoutExtended(o.Args)
	case XFS:
		args = o.xfs()
	}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	args = append(args, rest...)
	return append(args, device)
}

// ext4 leaves out what would only fill a thin device: discards of what is not
// there, and zeros. It reserves no blocks for root: the reserve keeps a system's
// own disk usable, and in a volume it is 5 % that were asked for and not given.
// -F is for a device that is no partition.
func (o MakeOptions) ext4() []string {
	extended := []string{"nodiscard"}
	if o.Prezeroed {
		extended = append(extended, "assume_storage_prezeroed=1")
	}
	extended = append(extended, extendedOptions(o.Args)...)
	args := []string{"-F", "-m", "0", "-E", strings.Join(extended, ",")}
	if o.UUID != "" {
		args = append(args, "-U", o.UUID)
	}
	return args
}

// xfs sends no discards either. Nothing keeps mkfs.xfs from writing its log.
func (o MakeOptions) xfs() []string {
	args := []string{"-K"}
	if o.Overwrite {
		args = append(args, "-f")
	}
	if o.UUID != "" {
		args = append(args, "-m", "uuid="+o.UUID)
	}
	return args
}

// extendedOptions returns the values of -E among args. mke2fs knows only the last
// -E that it is given, so that those of others must be joined with ours.
func extendedOptions(args []string) (values []string) {
	for i := 0; i < len(args); i++ {
		switch value, attached := strings.CutPrefix(args[i], "-E"); {
		case attached && value != "":
			values = append(values, value)
		case attached && i+1 < len(args):
			i++
			values = append(values, args[i])
		}
	}
	return values
}

// withoutExtended returns args without -E and its values.
func withoutExtended(args []string) (rest []string) {
	for i := 0; i < len(args); i++ {
		if value, attached := strings.CutPrefix(args[i], "-E"); !attached {
			rest = append(rest, args[i])
		} else if value == "" {
			i++
		}
	}
	return rest
}
