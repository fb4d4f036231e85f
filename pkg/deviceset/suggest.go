package deviceset

import (
	"fmt"
	"strings"
)

// suggestion names the option that key was probably meant to be, or nothing.
func suggestion(key string) string {
	bare := strings.TrimPrefix(key, "dm.")
	best, name := 3, ""
	if len(bare) > maxDMName {
		return "" // no misspelling
	}
	for _, o := range optionTable {
		distance := editDistance(bare, strings.TrimPrefix(o.name, "dm."))
		if distance < best && 2*distance < len(bare) {
			best, name = distance, o.name
		}
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", name)
}

// editDistance counts the bytes to insert, delete or change to make b of a
// (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a[:i] to b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
