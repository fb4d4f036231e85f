package devmapper

import "fmt"

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
