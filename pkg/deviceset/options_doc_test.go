package deviceset

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated parts of docs/options.md anew")

// TestOptionsDoc: docs/options.md says what the tables say. With -update it is
// made to.
func TestOptionsDoc(t *testing.T) {
	const path = "../../docs/options.md"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(have)
	for name, table := range map[string]string{"options": optionsMarkdown(), "storage options": storageOptionsMarkdown()} {
		want, err = replaceBetween(want, "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n", table)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if want == string(have) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the tables say: go test ./pkg/deviceset -run TestOptionsDoc -update", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func replaceBetween(text, begin, end, with string) (string, error) {
	before, rest, ok1 := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return "", fmt.Errorf("want %q and %q", begin, end)
	}
	return before + begin + with + end + after, nil
}

func optionsMarkdown() string {
	var b strings.Builder
	b.WriteString("| option | value | default | what it does |\n|---|---|---|---|\n")
	for _, o := range optionTable {
		def := o.rule
		if o.def != "" {
			def = "`" + o.def + "`"
		}
		name := "`" + o.name + "`"
		for _, alias := range o.aliases {
			name += ", `" + alias + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, o.value, def, o.does)
	}
	return b.String()
}

func storageOptionsMarkdown() string {
	var b strings.Builder
	b.WriteString("| option | value | what it does |\n|---|---|---|\n")
	for _, o := range storageOptionTable {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.key, o.value, o.does)
	}
	return b.String()
}
