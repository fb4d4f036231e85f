package deviceset_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// docs/state.md lists all rules, in their order.
func TestRulesDoc(t *testing.T) {
	const path, begin, end = "../../docs/state.md", "<!-- rules -->\n", "<!-- /rules -->"
	text, err := os.ReadFile(path)
	must(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	have, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no %q and %q", path, begin, end)
	}
	var want strings.Builder
	for _, r := range deviceset.Rules {
		want.WriteString("- " + string(r) + ".\n")
	}
	if have == want.String() {
		return
	}
	if flag.Lookup("update").Value.String() == "true" {
		must(t, os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644))
		return
	}
	t.Errorf("%s differs from the rules: go test ./pkg/deviceset -run TestRulesDoc -update", path)
}
