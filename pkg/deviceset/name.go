package deviceset

import (
	"fmt"
	"regexp"
)

var nameGrammar = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// CheckName refuses names that could be taken for something else: a path, a hidden
// file, a flag.
func CheckName(name string) error {
	if !nameGrammar.MatchString(name) {
		return fmt.Errorf("name %.140q: want 1 to 128 of A-Z, a-z, 0-9, dot, _ and -, dot and - not first: %w",
			name, ErrInvalid)
	}
	return nil
}
