package deviceset

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SplitWords splits at spaces as a shell does, with '...' and "..." and a
// backslash before any character to keep them; nothing else is special. There is
// at least one word.
func SplitWords(s string) ([]string, error) {
	if !printable(s) {
		return nil, ErrInvalid
	}
	var (
		words   []string
		word    strings.Builder
		begun   bool // even '' is a word
		quote   rune
		escaped bool
	)
	for _, r := range s + " " {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			begun, escaped = true, true
		case quote == 0 && (r == '\'' || r == '"'):
			begun, quote = true, r
		case r == quote:
			quote = 0
		case r == ' ' && quote == 0:
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("no closing %c: %w", quote, ErrInvalid)
	case begun: // the backslash took the space that was put behind
		return nil, fmt.Errorf("nothing behind the backslash: %w", ErrInvalid)
	case words == nil:
		return nil, ErrInvalid
	}
	return words, nil
}

// printable reports whether s is UTF-8 of characters that print; of spaces only
// U+0020 does.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
