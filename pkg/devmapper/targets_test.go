package devmapper

import (
	"reflect"
	"strings"
	"testing"
)

var (
	sda = MakeDevNo(8, 0)
	dm5 = MakeDevNo(253, 5)
)

// tables are table lines with what they mean.
var tables = []struct {
	line   string
	target Target
}{
	{"linear 8:0 2048", Linear{sda, 2048}},
	{"striped 2 128 8:0 0 253:5 64", Striped{128, []Linear{{sda, 0}, {dm5, 64}}}},
	{"error ", ErrorTarget{}},
	{"zero ", Zero{}},
	{"thin 253:5 16777215", Thin{Pool: dm5, ID: MaxDeviceID}},
	{"thin 253:5 7 8:0", Thin{Pool: dm5, ID: 7, Origin: sda}},
	{"thin-pool 8:0 253:5 128 0 0", ThinPool{Metadata: sda, Data: dm5, BlockSize: 128}},
	{
		"thin-pool 8:0 253:5 256 100 2 skip_block_zeroing error_if_no_space",
		ThinPool{Metadata: sda, Data: dm5, BlockSize: 256, LowWater: 100, SkipBlockZeroing: true, ErrorIfNoSpace: true},
	},
	{
		"thin-pool 8:0 253:5 256 100 5 skip_block_zeroing ignore_discard no_discard_passdown read_only error_if_no_space",
		ThinPool{
			Metadata: sda, Data: dm5, BlockSize: 256, LowWater: 100, SkipBlockZeroing: true, IgnoreDiscard: true,
			NoDiscardPassdown: true, ReadOnly: true, ErrorIfNoSpace: true,
		},
	},
}

func lineOf(text string) Line {
	typ, params, _ := strings.Cut(text, " ")
	return Line{Length: 8, Type: typ, Params: params}
}

func TestTargetsPrintAndParse(t *testing.T) {
	for _, test := range tables {
		want := Whole(8, test.target)
		have, err := ParseTable([]Line{lineOf(test.line)})
		if err != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("%s parses as %+v, error %v", test.line, have, err)
		}
		if have, want := want.String(), "0 8 "+test.line+"\n"; have != want {
			t.Errorf("prints %q, want %q", have, want)
		}
	}
}

func TestParseTableRefuses(t *testing.T) {
	for _, test := range []struct{ line, cause string }{
		{"linear 8:0", "ends too early"},
		{"linear 8:0 2 3", `unexpected "3"`},
		{"linear /dev/sda 0", "want <major>:<minor>"},
		{"linear 4096:0 0", "want <major>:<minor>"},
		{"linear 8:0 -1", `"-1" is not a number`},
		{"striped 3 128 8:0 0", "ends too early"},
		{"striped 18446744073709551615 128 8:0 0", "ends too early"},
		{"zero 1", `unexpected "1"`},
		{"thin 253:5 16777216", "exceeds 16777215"},
		{"thin-pool 8:0 8:1 128 0 1", "ends too early"},
		{"thin-pool 8:0 8:1 128 0 1 go_faster", `unknown feature "go_faster"`},
		{"thin-pool 8:0 8:1 128 0 0 read_only", `unexpected "read_only"`},
		{"raid 1", `target "raid" is not known here`},
	} {
		_, err := ParseTable([]Line{lineOf(test.line)})
		if err == nil || !strings.Contains(err.Error(), test.cause) || !strings.Contains(err.Error(), test.line) {
			t.Errorf("%s: error is %v, want the line and %q", test.line, err, test.cause)
		}
	}
}

// FuzzParseTable holds printing and parsing together: what parses prints as
// something that parses as the same.
func FuzzParseTable(f *testing.F) {
	for _, test := range tables {
		f.Add(test.line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseTable([]Line{lineOf(text)})
		if err != nil {
			return
		}
		again, err := ParseTable(parsed.Lines())
		if err != nil || !reflect.DeepEqual(parsed, again) {
			t.Errorf("%q parses as %+v, and that as %+v, error %v", text, parsed, again, err)
		}
	})
}
