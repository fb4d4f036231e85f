package deviceset

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// The grammar keeps exponents away from big.Rat, which would compute them.
var sizeGrammar = regexp.MustCompile(
	`^([0-9]{1,19}(?:\.[0-9]{1,19})?) ?(?:([kKmMgGtTpP])(?:i|[iI]?[bB])?|[bB])?$`)

// ParseSize reads a size as people write it: 10G, 64k, 1.5 TiB, or as Kubernetes has it:
// 10Gi. Units are powers of 1024, as with Docker, whose parser computes in floating point
// and so lets fractions of a byte, lost digits and overflow pass.
func ParseSize(s string) (int64, error) {
	parts := sizeGrammar.FindStringSubmatch(s)
	if parts == nil {
		return 0, ErrInvalid
	}
	size, _ := new(big.Rat).SetString(parts[1])
	power := strings.Index(" kmgtp", strings.ToLower(parts[2]))
	size.Mul(size, new(big.Rat).SetInt64(1<<(10*power)))
	switch {
	case !size.IsInt():
		return 0, fmt.Errorf("no whole number of bytes: %w", ErrInvalid)
	case !size.Num().IsInt64():
		return 0, fmt.Errorf("beyond 2^63 bytes: %w", ErrInvalid)
	}
	return size.Num().Int64(), nil
}
