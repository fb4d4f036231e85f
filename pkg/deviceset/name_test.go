package deviceset

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "A", "7", "_", "pvc-2", "a.b_c-D", "base", "0123", strings.Repeat("n", 128)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"", ".", "..", ".a", "-a", "a/b", "../a", "a b", "a\n", "\na", "a\x00", "ä", "a\xff", "a:b", strings.Repeat("n", 129),
	} {
		err := CheckName(name)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "name ") {
			t.Errorf("%q: error %v", name, err)
		}
	}
}
