package deviceset

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "0G": 0, "512": 512, "512b": 512, "64k": 64 << 10, "64K": 64 << 10, "64kb": 64 << 10, "64KiB": 64 << 10,
		"10G": 10 << 30, "10 G": 10 << 30, "10Gi": 10 << 30, "1.5T": 3 << 39, "0.5k": 512, "1P": 1 << 50, "1.0": 1, "007": 7,
		"9223372036854775807": math.MaxInt64, "9007199254740993": 1<<53 + 1, "8191.9990234375P": 8191<<50 + 1023<<40,
	} {
		if have, err := ParseSize(text); err != nil || have != want {
			t.Errorf("%q is %d bytes, want %d, error %v", text, have, want, err)
		}
	}
	for _, text := range []string{
		"", " ", "-1", "+1", "-1G", "k", "1.", ".5k", "1e3", "0x10", "1_000", "1,5G", "1..5G", "1  G", " 1G", "1G ", "1GI", "1ib", "1i",
		"1E", "1Z", "1.5", "0.1G", "0.0001k", "9223372036854775808", "8192P", "99999999999999999999", "Inf", "NaN", "1\nG",
		"1\u212a", "١", strings.Repeat("9", 1<<20),
	} {
		if have, err := ParseSize(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.40q is %d bytes, error %v", text, have, err)
		}
	}
}
