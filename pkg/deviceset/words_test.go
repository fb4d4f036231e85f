package deviceset

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestSplitWords(t *testing.T) {
	for text, want := range map[string][]string{
		"a":               {"a"},
		"  a  b ":         {"a", "b"},
		"-O ^has_journal": {"-O", "^has_journal"},
		`'a b' "c d"`:     {"a b", "c d"},
		`a'b c'd`:         {"ab cd"},
		`''`:              {""},
		`"it's"`:          {"it's"},
		`'say "a"'`:       {`say "a"`},
		`a\ b \\ \'`:      {"a b", `\`, "'"},
		`"a\"b"`:          {`a"b`},
		`'a\'`:            {`a\`},
		"$HOME `id` *":    {"$HOME", "`id`", "*"},
		"ä ö":             {"ä", "ö"},
	} {
		if have, err := SplitWords(text); err != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("%s splits into %q, want %q, error %v", text, have, want, err)
		}
	}
	for _, text := range []string{"", "  ", "'", `"`, `'a`, `"a'`, `a\`, `"a\"`, "a\tb", "a\nb", "a\x00", "a\xff"} {
		if have, err := SplitWords(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q splits into %q, error %v", text, have, err)
		}
	}
}

// joinWords quotes words such that splitWords finds them again.
func joinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
