package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

func second[A any](_ A, err error) error { return err }

// refused fails unless err says all of that, in one line.
func refused(t *testing.T, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", says)
		return
	}
	for _, words := range says {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("error %q does not say %q", err, words)
		}
	}
	if text := oneLine(err); strings.Contains(text, "\n") {
		t.Errorf("error %q has several lines", text)
	}
}

// configured reads a file, unless it is empty, and a command line.
func configured(t *testing.T, file string, args ...string) (config, error) {
	t.Helper()
	var c config
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.flags(f)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := f.Parse(args); err != nil {
		return c, err
	}
	return c, c.complete(f)
}

func TestConfigDefaults(t *testing.T) {
	t.Setenv("CSI_ENDPOINT", "")
	t.Setenv("NODE_NAME", "node-1")
	c, err := configured(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Endpoint: "unix:///run/csi-dmthin/csi.sock", AdminSocket: "/run/csi-dmthin/admin.sock", Node: "node-1",
		StateDir: "/var/lib/csi-dmthin", KubeletDir: "/var/lib/kubelet", HTTP: ":9808", LogFormat: "text",
		Pools: poolConfigs{"default": {"loopdatasize": "20G", "preallocate": "true"}}, VolumeMetrics: true, MeasureInterval: 10 * time.Minute,
	}
	sameConfig(t, c, want)
	if root := c.root("default"); root != "/var/lib/csi-dmthin/pools/default" {
		t.Errorf("root %s", root)
	}
}

func sameConfig(t *testing.T, got, want config) {
	t.Helper()
	got.File = ""
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("configured %s\nwant       %s", g, w)
	}
}

const wholeFile = `
endpoint: unix:///tmp/csi.sock
admin-socket: /tmp/admin.sock
node: from-file
state-dir: /srv/state
kubelet-dir: /srv/kubelet
http: ""
log-format: json
volume-metrics: false
measure-interval: 1h
pools:
  default:
    datadev: /dev/vdb
    metadatadev: /dev/vdc
    min_free_space: 5%
    overprovision_ratio: 1.5
    grow-to: 107374182400
  fast:
    loopdatasize: 2097152000
    use_deferred_removal: true
  plain:
`

func TestConfigFile(t *testing.T) {
	c, err := configured(t, wholeFile)
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, c, config{
		Endpoint: "unix:///tmp/csi.sock", AdminSocket: "/tmp/admin.sock", Node: "from-file", StateDir: "/srv/state",
		KubeletDir: "/srv/kubelet", LogFormat: "json", MeasureInterval: time.Hour,
		Pools: poolConfigs{
			"default": {"datadev": "/dev/vdb", "metadatadev": "/dev/vdc", "min_free_space": "5%", "overprovision_ratio": "1.5", "grow-to": "107374182400"},
			"fast":    {"loopdatasize": "2097152000", "use_deferred_removal": "true"},
			"plain":   {},
		},
	})
	if p, err := parsePool(c.Pools["default"]); err != nil || p.growTo != 100<<30 {
		t.Errorf("grow-to is %d, error %v", p.growTo, err)
	}
}

// What the command line has, the file has not; pools of both are not mixed.
func TestConfigCommandLineWins(t *testing.T) {
	c, err := configured(t, wholeFile, "--node", "from-line", "--http=:1", "--volume-metrics", "--pools", "other:fs=xfs")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node != "from-line" || c.HTTP != ":1" || !c.VolumeMetrics || c.StateDir != "/srv/state" || c.Pools.String() != "other:fs=xfs" {
		t.Errorf("configured %+v", c)
	}
}

// The environment has less to say than a file.
func TestConfigEnvironment(t *testing.T) {
	t.Setenv("CSI_ENDPOINT", "unix:///from-env.sock")
	t.Setenv("NODE_NAME", "from-env")
	c, err := configured(t, "node: from-file")
	if err != nil || c.Endpoint != "unix:///from-env.sock" || c.Node != "from-file" {
		t.Errorf("endpoint %s, node %s, error %v", c.Endpoint, c.Node, err)
	}
}

func TestConfigPools(t *testing.T) {
	c, err := configured(t, "", "--pools", "b:loopdatasize=1G,grow-to=2G", "--pools", "a:", "--pools", "c")
	if err != nil || c.Pools.String() != "a: b:grow-to=2G,loopdatasize=1G c:" {
		t.Errorf("pools %s, error %v", c.Pools.String(), err)
	}
}

func TestConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		args []string
		says []string
	}{
		"an unknown flag":         {args: []string{"--colour"}, says: []string{"--colour"}},
		"an unknown key":          {file: "colour: red", says: []string{`"colour" is no flag of this command`, "config.yaml"}},
		"a file in a file":        {file: "config: x", says: []string{`"config" is no flag`}},
		"a key twice":             {file: "node: a\nnode: b", says: []string{"node"}},
		"what is no YAML":         {file: "{", says: []string{"config.yaml"}},
		"no file":                 {args: []string{"--config", "/nowhere/c.yaml"}, says: []string{"/nowhere/c.yaml", "no such file"}},
		"a list for a name":       {file: "http: [a]", says: []string{"http: want one value"}},
		"a word for a bool":       {file: "volume-metrics: maybe", says: []string{"volume-metrics", "maybe"}},
		"a bad duration":          {file: "measure-interval: 5", says: []string{"measure-interval"}},
		"a duration below 0":      {args: []string{"--measure-interval", "-1s"}, says: []string{"--measure-interval: -1s: want 0 or more"}},
		"another log format":      {args: []string{"--log-format", "xml"}, says: []string{`--log-format: "xml": want text or json`}},
		"a relative directory":    {args: []string{"--state-dir", "state"}, says: []string{`--state-dir: "state": want an absolute, clean path`}},
		"an unclean directory":    {args: []string{"--kubelet-dir", "/var/../x"}, says: []string{"--kubelet-dir"}},
		"the root directory":      {args: []string{"--kubelet-dir", "/"}, says: []string{"--kubelet-dir"}},
		"no node":                 {args: []string{"--node", ""}, says: []string{"--node: this node has no name"}},
		"a pool option":           {args: []string{"--pools", "fast:colour=red"}, says: []string{"pool fast", `"dm.colour": unknown`}},
		"a pool option of a file": {file: "pools: {fast: {colour: red}}", says: []string{"pool fast", `"dm.colour": unknown`}},
		"a pool option's value":   {args: []string{"--pools", "fast:min_free_space=much"}, says: []string{"pool fast", `dm.min_free_space="much": want 0% to 99%`}},
		"a pool option's list":    {file: "pools: {fast: {fs: [xfs]}}", says: []string{"pool fast: fs: want one value"}},
		"an option without value": {args: []string{"--pools", "fast:force"}, says: []string{`pool fast: "force": want OPTION=VALUE`}},
		"an option's null":        {file: "pools: {fast: {fs: }}", says: []string{"pool fast: fs: want one value"}},
		"an option twice":         {args: []string{"--pools", "fast:fs=xfs,fs=ext4"}, says: []string{"pool fast: option fs is given twice"}},
		"a pool twice":            {args: []string{"--pools", "fast:", "--pools", "fast:"}, says: []string{"pool fast is given twice"}},
		"a pool's name":           {args: []string{"--pools", "Fast:"}, says: []string{`pool "Fast": want 1 to 63 of a-z`}},
		"a pool without name":     {args: []string{"--pools", ":fs=xfs"}, says: []string{`pool "": want`}},
		"pools that are a list":   {file: "pools: [fast]", says: []string{"pools: want the pools by name"}},
		"a pool that is a word":   {file: "pools: {fast: xfs}", says: []string{"pool fast: want its options by name"}},
		"a bad size to grow to":   {args: []string{"--pools", "fast:grow-to=big"}, says: []string{"pool fast: grow-to"}},
		"options that clash":      {args: []string{"--pools", "fast:datadev=/dev/a"}, says: []string{"pool fast", "dm.metadatadev"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := configured(t, c.file, append([]string{"--node", "n"}, c.args...)...)
			refused(t, err, c.says...)
		})
	}
}

// JSON has the lines that text would have.
func TestLogLevelOfJSON(t *testing.T) {
	defer restoreLogLevel(t)()
	handler := slog.NewJSONHandler(&strings.Builder{}, &slog.HandlerOptions{Level: slogLevel{}})
	for _, level := range []int{0, 1, 4} {
		must0(t, logLevel{level}.set())
		if got := currentLogLevel().Level; got != level {
			t.Errorf("log level %d, want %d", got, level)
		}
		for v := range 6 {
			if got := handler.Enabled(context.Background(), slog.Level(-v)); got != (v <= level) {
				t.Errorf("at log level %d, a line of level %d is written: %v", level, v, got)
			}
		}
	}
	refused(t, logLevel{11}.set(), "log level 11: want 0 to 10")
	refused(t, logLevel{-1}.set(), "log level -1: want 0 to 10")
}

func restoreLogLevel(t *testing.T) func() {
	before := currentLogLevel()
	return func() {
		must0(t, before.set())
		klog.Flush()
	}
}

func must0(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A disk is one pool's, and once.
func TestPoolsShareNoDisk(t *testing.T) {
	for _, pools := range []poolConfigs{
		{"a": {"datadev": "/dev/x", "metadatadev": "/dev/y"}, "b": {"datadev": "/dev/x", "metadatadev": "/dev/z"}},
		{"a": {"datadev": "/dev/x", "metadatadev": "/dev/y"}, "b": {"datadev": "/dev/z", "metadatadev": "/dev/x"}},
		{"a": {"datadev": "/dev/x", "metadatadev": "/dev/x"}},
		{"a": {"thinpooldev": "x"}, "b": {"thinpooldev": "x"}},
		{"a": {"datadev": "/dev/null", "metadatadev": "/dev/y"}, "b": {"datadev": "/dev/../dev/null", "metadatadev": "/dev/z"}},
	} {
		if err := pools.checkDisks(); err == nil {
			t.Errorf("%v is accepted", pools)
		}
	}
	if err := (poolConfigs{"a": {"datadev": "/dev/x", "metadatadev": "/dev/y"}, "b": {}}).checkDisks(); err != nil {
		t.Error(err)
	}
	for option := range decidedHere {
		if _, err := parsePool(map[string]string{option: "true"}); err == nil {
			t.Errorf("%s is accepted", option)
		}
	}
}
