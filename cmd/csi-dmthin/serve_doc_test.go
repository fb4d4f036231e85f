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
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

// docs/serve.md has all flags and all metrics, as the code has them.
func TestServeDoc(t *testing.T) {
	checkTables(t, "../../docs/serve.md", map[string]string{
		"flags":   flagTable((&config{}).flags),
		"metrics": metricTable(func(r prometheus.Registerer) { csi.NewMetrics(r, csi.New(csi.Options{}), true) }),
	})
}

// docs/cluster.md has those of node and controller.
func TestClusterDoc(t *testing.T) {
	checkTables(t, "../../docs/cluster.md", map[string]string{
		"node flags":       flagTable((&nodeConfig{}).flags),
		"controller flags": flagTable((&controllerConfig{}).flags),
		"metrics":          metricTable(func(r prometheus.Registerer) { gateway.NewMetrics(r, gateway.New(gateway.Options{})) }),
	})
}

// checkTables compares the tables of a document with what they should be.
func checkTables(t *testing.T, path string, tables map[string]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range tables {
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
		t.Fatalf("%s is not what the code says: go test ./cmd/csi-dmthin -run Doc -update", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// flagTable lists flags. The node's name is this machine's.
func flagTable(add func(*pflag.FlagSet)) string {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	add(f)
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

// metricTable lists metrics.
func metricTable(register func(prometheus.Registerer)) string {
	r := &describing{}
	register(r)
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
