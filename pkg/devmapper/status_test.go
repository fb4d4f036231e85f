package devmapper

import (
	"strings"
	"testing"
)

// poolStatuses are status lines as kernels print them, with what they mean.
var poolStatuses = []struct {
	line string
	want PoolStatus
}{
	{
		"7 4173/1048576 12/256 - rw discard_passdown queue_if_no_space - 1024 ",
		PoolStatus{TransactionID: 7, Metadata: Usage{4173, 1048576}, Data: Usage{12, 256}, MetadataLowWater: 1024},
	},
	{
		"0 68/512 256/256 10 out_of_data_space no_discard_passdown error_if_no_space - 128 ",
		PoolStatus{
			Mode: PoolOutOfDataSpace, Metadata: Usage{68, 512}, Data: Usage{256, 256}, HeldRoot: 10,
			Discard: NoDiscardPassdown, ErrorIfNoSpace: true, MetadataLowWater: 128,
		},
	},
	{
		"1 512/512 0/256 - ro ignore_discard error_if_no_space needs_check 128 ",
		PoolStatus{
			Mode: PoolReadOnly, TransactionID: 1, Metadata: Usage{512, 512}, Data: Usage{0, 256},
			Discard: IgnoreDiscard, ErrorIfNoSpace: true, NeedsCheck: true, MetadataLowWater: 128,
		},
	},
	{"Fail", PoolStatus{Mode: PoolFail}},
	{"Error", PoolStatus{Mode: PoolError}},
}

func TestParsePoolStatus(t *testing.T) {
	for _, test := range poolStatuses {
		have, err := ParsePoolStatus(test.line)
		if err != nil || have != test.want {
			t.Errorf("%q parses as %+v, error %v", test.line, have, err)
		}
		if printed := have.String(); printed != strings.TrimSpace(test.line) {
			t.Errorf("%q prints as %q", test.line, printed)
		}
	}
}

func TestParsePoolStatusOfOtherKernels(t *testing.T) {
	older, err := ParsePoolStatus("7 68/512 12/256 - rw discard_passdown queue_if_no_space ")
	if err != nil || older.NeedsCheck || older.MetadataLowWater != 0 {
		t.Errorf("a line without needs_check parses as %+v, error %v", older, err)
	}
	newer, err := ParsePoolStatus("7 68/512 12/256 - rw discard_passdown queue_if_no_space - 128 and more")
	if err != nil || newer.MetadataLowWater != 128 {
		t.Errorf("a line with more fields parses as %+v, error %v", newer, err)
	}
}

func TestParsePoolStatusRefuses(t *testing.T) {
	for _, line := range []string{
		"", "7", "x 68/512 12/256 - rw discard_passdown queue_if_no_space", "7 68 12/256 - rw discard_passdown queue_if_no_space",
		"7 68/512 12/256 - mended discard_passdown queue_if_no_space", "7 68/512 12/256 - rw discard queue_if_no_space",
		"7 68/512 12/256 - rw discard_passdown explode_if_no_space", "7 68/512 12/256 - rw discard_passdown queue_if_no_space maybe",
	} {
		if have, err := ParsePoolStatus(line); err == nil {
			t.Errorf("%q parses as %+v", line, have)
		}
	}
}

func TestPoolStatusTells(t *testing.T) {
	full := Usage{512, 512}
	for _, test := range []struct {
		status                        PoolStatus
		known, commits, outOfMetadata bool
	}{
		{PoolStatus{Mode: PoolWrite}, true, true, false},
		{PoolStatus{Mode: PoolOutOfDataSpace}, true, true, false},
		{PoolStatus{Mode: PoolOutOfDataSpace, NeedsCheck: true}, true, false, false},
		{PoolStatus{Mode: PoolReadOnly, Metadata: full}, true, false, true},
		{PoolStatus{Mode: PoolReadOnly, Metadata: full, NeedsCheck: true}, true, false, false},
		{PoolStatus{Mode: PoolReadOnly, Metadata: Usage{1, 512}}, true, false, false},
		{PoolStatus{Mode: PoolFail}, false, false, false},
		{PoolStatus{Mode: PoolError}, false, false, false},
	} {
		s := test.status
		if s.Known() != test.known || s.Commits() != test.commits || s.OutOfMetadata() != test.outOfMetadata {
			t.Errorf("%q: known %v, commits %v, out of metadata %v", s, s.Known(), s.Commits(), s.OutOfMetadata())
		}
	}
}

func TestParseThinStatus(t *testing.T) {
	for line, want := range map[string]ThinStatus{
		"0 -":     {},
		"256 383": {Mapped: 256, Highest: 383},
		"Fail":    {State: ThinFail},
		"-":       {State: ThinClosed},
		"Error":   {State: ThinError},
	} {
		have, err := ParseThinStatus(line)
		if err != nil || have != want {
			t.Errorf("%q parses as %+v, error %v", line, have, err)
		}
		if have.String() != line {
			t.Errorf("%q prints as %q", line, have)
		}
	}
	for _, line := range []string{"", "1", "- 1", "1 2 3", "many -"} {
		if have, err := ParseThinStatus(line); err == nil {
			t.Errorf("%q parses as %+v", line, have)
		}
	}
}

// FuzzParsePoolStatus holds printing and parsing together.
func FuzzParsePoolStatus(f *testing.F) {
	for _, test := range poolStatuses {
		f.Add(test.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		s, err := ParsePoolStatus(line)
		if err != nil {
			return
		}
		if again, err := ParsePoolStatus(s.String()); err != nil || again != s {
			t.Errorf("%q parses as %+v, and that as %+v, error %v", line, s, again, err)
		}
	})
}

// FuzzParseThinStatus holds printing and parsing together.
func FuzzParseThinStatus(f *testing.F) {
	for _, line := range []string{"0 -", "256 383", "Fail", "-", "Error"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		s, err := ParseThinStatus(line)
		if err != nil {
			return
		}
		if s.Mapped == 0 {
			s.Highest = 0 // not printed
		}
		if again, err := ParseThinStatus(s.String()); err != nil || again != s {
			t.Errorf("%q parses as %+v, and that as %+v, error %v", line, s, again, err)
		}
	})
}
