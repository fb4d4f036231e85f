package chart

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	v2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	root     = "../.."
	chartDir = root + "/charts/csi-dmthin"

	snapshotAPI   = "snapshot.storage.k8s.io/v1"
	prometheusAPI = "monitoring.coreos.com/v1"
)

var update = flag.Bool("update", false, "write what is rendered to where it is kept")

// A release is how the chart is installed.
type release struct {
	name, namespace string
	apis            []string // which the cluster has beside its own
}

var usual = release{name: "csi-dmthin", namespace: "csi-dmthin"}

func loadChart(t *testing.T) *v2.Chart {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// render returns what Helm would make of values, by template.
func (r release) render(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	chart := loadChart(t)
	kubernetes, err := common.ParseKubeVersion("v1.37.2")
	if err != nil {
		t.Fatal(err)
	}
	capabilities := &common.Capabilities{KubeVersion: *kubernetes, APIVersions: append(slices.Clone(common.DefaultVersionSet), r.apis...)}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: r.name, Namespace: r.namespace, IsInstall: true}, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for name, text := range files {
		byName[filepath.Base(name)] = text
	}
	return byName, nil
}

// documents returns the objects of a template, or of a file, as text.
func documents(text string) (all []string) {
	for _, document := range strings.Split("\n"+text, "\n---") {
		if content := strings.TrimSpace(document); content != "" && !onlyComments(content) {
			all = append(all, content+"\n")
		}
	}
	return all
}

func onlyComments(text string) bool {
	return !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
		return line != "" && !strings.HasPrefix(line, "#")
	})
}

// manifest returns all objects as text, in one order.
func (r release) manifest(t *testing.T, values map[string]any) []string {
	t.Helper()
	files, err := r.render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) == ".yaml" {
			all = append(all, documents(files[name])...)
		}
	}
	return all
}

func readValues(t *testing.T, path string) map[string]any {
	t.Helper()
	return parseValues(t, readText(t, path))
}

func parseValues(t *testing.T, text string) map[string]any {
	t.Helper()
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// mustBe compares a file with what it should be, or makes it so.
func mustBe(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != want {
		t.Errorf("%s is not what the chart makes: run the tests with -update (%v)", path, err)
	}
}

// valueFiles returns the files of values that are tried.
func valueFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	return files
}
