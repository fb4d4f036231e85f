package devmapper

import (
	"fmt"
	"strconv"
	"strings"
)

// Linear is another device from a certain sector on
// (drivers/md/dm-linear.c).
type Linear struct {
	Dev   DevNo
	Start Sectors
}

// TargetType returns "linear".
func (Linear) TargetType() string { return "linear" }

// String prints l as the kernel reads it: <device> <start>.
func (l Linear) String() string { return fmt.Sprintf("%s %d", l.Dev, l.Start) }

// ParseLinear reads what String prints.
func ParseLinear(s string) (Linear, error) {
	w := words(s)
	l := Linear{Dev: w.devNo(), Start: Sectors(w.number())}
	return l, w.end("linear")
}

// Striped spreads chunks over several devices in turn
// (drivers/md/dm-stripe.c).
type Striped struct {
	Chunk   Sectors // length of a chunk
	Stripes []Linear
}

// TargetType returns "striped".
func (Striped) TargetType() string { return "striped" }

// String prints s as the kernel reads it: <stripes> <chunk> (<device> <start>)...
func (s Striped) String() string {
	text := fmt.Sprintf("%d %d", len(s.Stripes), s.Chunk)
	for _, stripe := range s.Stripes {
		text += " " + stripe.String()
	}
	return text
}

// ParseStriped reads what String prints.
func ParseStriped(s string) (Striped, error) {
	w := words(s)
	count := w.number()
	striped := Striped{Chunk: Sectors(w.number())}
	for ; count > 0 && w.err == nil; count-- {
		striped.Stripes = append(striped.Stripes, Linear{Dev: w.devNo(), Start: Sectors(w.number())})
	}
	return striped, w.end("striped")
}

// ErrorTarget fails all I/O with EIO (drivers/md/dm-target.c).
type ErrorTarget struct{}

// TargetType returns "error".
func (ErrorTarget) TargetType() string { return "error" }

// String prints nothing: the target has no parameters.
func (ErrorTarget) String() string { return "" }

// Zero reads as zeros and forgets what is written (drivers/md/dm-zero.c).
type Zero struct{}

// TargetType returns "zero".
func (Zero) TargetType() string { return "zero" }

// String prints nothing: the target has no parameters.
func (Zero) String() string { return "" }

func noParams(t Target, s string) error {
	w := words(s)
	return w.end(t.TargetType())
}

// A fields takes words off a line. The first word that is not what was asked
// for sets err, and all reads after that answer zero.
type fields struct {
	rest []string
	err  error
}

func words(s string) *fields { return &fields{rest: strings.Fields(s)} }

func (f *fields) word() string {
	if f.err == nil && len(f.rest) == 0 {
		f.err = fmt.Errorf("ends too early")
	}
	if f.err != nil {
		return ""
	}
	word := f.rest[0]
	f.rest = f.rest[1:]
	return word
}

func (f *fields) number() uint64 { return f.numberBefore("") }

// numberBefore reads a number that a separator ends, as in 12/34.
func (f *fields) numberBefore(sep string) uint64 {
	word := f.word()
	digits, tail, found := word, "", true
	if sep != "" {
		digits, tail, found = strings.Cut(word, sep)
		f.rest = append([]string{tail}, f.rest...)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if f.err == nil && (err != nil || !found) {
		f.err = fmt.Errorf("%q is not a number", word)
	}
	return n
}

func (f *fields) devNo() DevNo {
	dev, err := ParseDevNo(f.word())
	if f.err == nil {
		f.err = err
	}
	return dev
}

// oneOf reads a word that must be one of those given.
func (f *fields) oneOf(choices ...string) string {
	word := f.word()
	for _, c := range choices {
		if word == c {
			return word
		}
	}
	if f.err == nil {
		f.err = fmt.Errorf("%q is none of %s", word, strings.Join(choices, ", "))
	}
	return ""
}

// more reports whether a word is left.
func (f *fields) more() bool { return f.err == nil && len(f.rest) > 0 }

// end returns what went wrong, a word too many included.
func (f *fields) end(what string) error {
	if f.more() {
		f.err = fmt.Errorf("unexpected %q", f.rest[0])
	}
	if f.err != nil {
		return fmt.Errorf("%s: %w", what, f.err)
	}
	return nil
}
