package csi

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

var update = flag.Bool("update", false, "write the generated part of docs/parameters.md anew")

// docs/parameters.md says what the table says. With -update it is made to.
func TestParametersDoc(t *testing.T) {
	const path, begin, end = "../../docs/parameters.md", "<!-- begin parameters -->\n", "<!-- end parameters -->\n"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(have), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s: want %q and %q", path, begin, end)
	}
	want := before + begin + parametersMarkdown() + end + after
	if want == string(have) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the table says: go test ./pkg/csi -run TestParametersDoc -update", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func parametersMarkdown() string {
	var b strings.Builder
	b.WriteString("| parameter | value | what it does |\n|---|---|---|\n")
	for _, row := range parameterTable {
		fmt.Fprintf(&b, "| `%s%s` | %s | %s |\n", plugin.ParameterPrefix, row.key, row.value, row.does)
	}
	return b.String()
}

func FuzzParameters(f *testing.F) {
	for _, row := range parameterTable {
		for _, value := range []string{"", "true", "default", `-L "a b" -E 'x'`, `"`, "\\", "1"} {
			f.Add(plugin.ParameterPrefix+row.key, value)
		}
	}
	f.Add(foreignPrefix+"fstype", "xfs")
	f.Add(foreignPrefix+"pvc/name", "data-0")
	f.Add("", "")
	f.Add("csi-dmthin.dev/pol", "fast")
	f.Fuzz(func(t *testing.T, key, value string) {
		p, err := parseParameters(map[string]string{key: value})
		name, ours := strings.CutPrefix(key, plugin.ParameterPrefix)
		known := false
		for _, row := range parameterTable {
			known = known || ours && row.key == name
		}
		switch {
		case err == nil && !known && !strings.HasPrefix(key, foreignPrefix):
			t.Errorf("%q is taken, and not known", key)
		case err != nil && !errors.Is(err, errInvalid):
			t.Errorf("%q=%q: %v", key, value, err)
		case err != nil && !strings.Contains(err.Error(), key) && !strings.Contains(err.Error(), fmt.Sprintf("%q", key)):
			t.Errorf("%q=%q: it is not named: %v", key, value, err)
		case err == nil && p.mkfs != "":
			words, err := mkfsWords(p.mkfs)
			if err != nil || p.mkfs != value {
				t.Errorf("%q was taken, and is %q: %v", value, words, err)
			}
		}
	})
}
