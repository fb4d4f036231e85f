package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
)

// docs/serve.md has all flags and all metrics, as the code has them.
func TestServeDoc(t *testing.T) {
	const path = "../../docs/serve.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range map[string]string{"flags": flagTable(), "metrics": metricTable()} {
		part := regexp.MustCompile(`(?s)<!-- ` + name + ` -->\n.*?<!-- end -->`)
		if !part.MatchString(want) {
			t.Fatalf("%s has no place for the %s", path, name)
		}
		want = part.ReplaceAllLiteralString(want, "<!-- "+name+" -->\n"+table+"<!-- end -->")
	}
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the code says: go test ./cmd/csi-dmthin -run TestServeDoc -update", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// flagTable lists the flags of serve. The node's name is this machine's.
func flagTable() string {
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	(&config{}).flags(f)
	table := "| flag | default | |\n|---|---|---|\n"
	f.VisitAll(func(flag *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(flag)
		value := "`" + flag.DefValue + "`"
		switch {
		case flag.Name == "node":
			value = "the host's name"
		case flag.DefValue == "":
			value = ""
		}
		table += fmt.Sprintf("| `--%s` | %s | %s |\n", flag.Name, value, usage)
	})
	return table
}

var described = regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)",.* variableLabels: {([^}]*)}`)

// metricTable lists the metrics of a driver.
func metricTable() string {
	r := &describing{}
	csi.NewMetrics(r, csi.New(csi.Options{}), true)
	slices.Sort(r.rows)
	return "| metric | labels | |\n|---|---|---|\n" + strings.Join(r.rows, "")
}

// describing is a registry that only asks what there is.
type describing struct{ rows []string }

func (d *describing) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		descs := make(chan *prometheus.Desc)
		go func() { defer close(descs); c.Describe(descs) }()
		for desc := range descs {
			m := described.FindStringSubmatch(desc.String())
			d.rows = append(d.rows, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
		}
	}
}

func (d *describing) Register(c prometheus.Collector) error { d.MustRegister(c); return nil }
func (d *describing) Unregister(prometheus.Collector) bool  { return false }
