package devmapper

import (
	"fmt"
	"strings"
)

// A Target is what a stretch of a device does with its I/O. Its String is the
// parameter text of a table line, as the kernel prints it back.
type Target interface {
	// TargetType is the kernel's name of the target, such as "thin-pool".
	TargetType() string
	fmt.Stringer
}

// A Segment maps Length sectors of a device, from Start on, by a target.
type Segment struct {
	Start, Length Sectors
	Target        Target
}

// A Table is all that a device does. Its segments follow each other without a gap.
type Table []Segment

// Whole returns the table of a device that is one target from begin to end.
func Whole(length Sectors, t Target) Table { return Table{{Length: length, Target: t}} }

// Length returns the size of a device with this table.
func (t Table) Length() (length Sectors) {
	for _, s := range t {
		length += s.Length
	}
	return length
}

// Lines returns the table as the kernel is given it.
func (t Table) Lines() []Line {
	lines := make([]Line, len(t))
	for i, s := range t {
		lines[i] = Line{s.Start, s.Length, s.Target.TargetType(), s.Target.String()}
	}
	return lines
}

// String prints one line a segment: <start> <length> <type> <parameters>.
func (t Table) String() string {
	var b strings.Builder
	for _, l := range t.Lines() {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

// String prints l as dmsetup does: <start> <length> <type> <parameters>.
func (l Line) String() string {
	return fmt.Sprintf("%d %d %s %s", l.Start, l.Length, l.Type, l.Params)
}

// parsers are the targets that ParseTable reads.
var parsers = map[string]func(string) (Target, error){
	ThinPool{}.TargetType(): func(s string) (Target, error) { return ParseThinPool(s) },
	Thin{}.TargetType():     func(s string) (Target, error) { return ParseThin(s) },
	Linear{}.TargetType():   func(s string) (Target, error) { return ParseLinear(s) },
	Striped{}.TargetType():  func(s string) (Target, error) { return ParseStriped(s) },
	ErrorTarget{}.TargetType(): func(s string) (Target, error) {
		return ErrorTarget{}, noParams(ErrorTarget{}, s)
	},
	Zero{}.TargetType(): func(s string) (Target, error) { return Zero{}, noParams(Zero{}, s) },
}

// ParseTable reads the lines of a table. A target that this package does not
// know is an error that names it.
func ParseTable(lines []Line) (Table, error) {
	table := make(Table, len(lines))
	for i, l := range lines {
		parse := parsers[l.Type]
		if parse == nil {
			return nil, fmt.Errorf("table line %q: target %q is not known here", l, l.Type)
		}
		target, err := parse(l.Params)
		if err != nil {
			return nil, fmt.Errorf("table line %q: %w", l, err)
		}
		table[i] = Segment{l.Start, l.Length, target}
	}
	return table, nil
}
