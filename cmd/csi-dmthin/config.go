package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
)

// A config is what `serve` is told.
type config struct {
	File            string
	Endpoint        string
	AdminSocket     string
	Node            string
	StateDir        string
	KubeletDir      string
	HTTP            string
	LogFormat       string
	Pools           poolConfigs
	VolumeMetrics   bool
	MeasureInterval time.Duration

	perNode nodePools // pools of single nodes; empty but for `node`
}

func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.File, "config", "", "`file` (YAML) with these flags under their names")
	f.StringVar(&c.Endpoint, "endpoint", envOr("CSI_ENDPOINT", "unix:///run/csi-dmthin/csi.sock"), "where CSI is served: a `socket` ($CSI_ENDPOINT)")
	f.StringVar(&c.AdminSocket, "admin-socket", defaultAdminSocket, "`socket` of the operator's commands")
	f.StringVar(&c.Node, "node", hostname(), "`name` of this node ($NODE_NAME)")
	f.StringVar(&c.StateDir, "state-dir", "/var/lib/csi-dmthin", "`directory` of the pools' state, and of pools on files")
	f.StringVar(&c.KubeletDir, "kubelet-dir", "/var/lib/kubelet", "`directory` below which volumes are staged and published")
	f.StringVar(&c.HTTP, "http", ":9808", "`address` of /metrics, /healthz and /readyz; none if empty")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.Var(&c.Pools, "pools", "a `pool`, as NAME:OPTION=VALUE,...; may be given again. Options are those of docs/options.md without dm., and grow-to=SIZE: how large the pool may become when a volume expands")
	f.BoolVar(&c.VolumeMetrics, "volume-metrics", true, "tell the metrics of each volume")
	f.DurationVar(&c.MeasureInterval, "measure-interval", 10*time.Minute, "how often it is measured what each volume has of its pool alone; never if 0")
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// complete reads the file, and refuses what cannot be.
func (c *config) complete(f *pflag.FlagSet) error {
	if c.File != "" {
		if err := readFile(c.File, f); err != nil {
			return fmt.Errorf("config %s: %w", c.File, err)
		}
	}
	if own, ok := c.perNode[c.Node]; ok {
		c.Pools = own
	}
	if len(c.Pools) == 0 {
		if err := c.Pools.Set("default:loopdatasize=20G,preallocate=true"); err != nil {
			return err
		}
	}
	return c.check()
}

func (c *config) check() error {
	if c.Node == "" {
		return errors.New("--node: this node has no name: give one")
	}
	if _, err := csi.SocketPath(c.Endpoint); err != nil {
		return fmt.Errorf("--%w", err)
	}
	if err := c.Pools.checkDisks(); err != nil {
		return err
	}
	for name, dir := range map[string]string{"state-dir": c.StateDir, "kubelet-dir": c.KubeletDir} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" {
			return fmt.Errorf("--%s: %q: want an absolute, clean path below /", name, dir)
		}
	}
	if err := checkLogFormat(c.LogFormat); err != nil {
		return err
	}
	if c.MeasureInterval < 0 {
		return fmt.Errorf("--measure-interval: %v: want 0 or more", c.MeasureInterval)
	}
	return nil
}

func checkLogFormat(format string) error {
	if !slices.Contains([]string{"text", "json"}, format) {
		return fmt.Errorf("--log-format: %q: want text or json", format)
	}
	return nil
}

// setLogging has klog write JSON, if it is to.
func setLogging(format string) {
	if format == "json" {
		klog.SetSlogLogger(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slogLevel{}})))
	}
}

// readFile sets the flags that stand in a file and were not given.
func readFile(path string, f *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file map[string]any
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		flag := f.Lookup(name)
		switch {
		case flag == nil || name == "config":
			return fmt.Errorf("%q is no flag of this command", name)
		case flag.Changed:
			continue
		}
		if err := setFlag(flag, file[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func setFlag(flag *pflag.Flag, value any) error {
	if p, ok := flag.Value.(interface{ setMap(any) error }); ok {
		return p.setMap(value)
	}
	text, err := scalar(value)
	if err != nil {
		return err
	}
	return flag.Value.Set(text)
}

// scalar prints a value of a file as one would give it. Numbers are digits: a size of
// bytes is not 1e+09.
func scalar(value any) (string, error) {
	switch value := value.(type) {
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64), nil
	case string, bool:
		return fmt.Sprint(value), nil
	}
	return "", fmt.Errorf("want one value, not %v", value)
}

// poolConfigs are the options of pools, by name.
type poolConfigs map[string]map[string]string

// String prints the pools as they are given.
func (p *poolConfigs) String() string {
	var all []string
	for _, name := range p.names() {
		var options []string
		for _, key := range slices.Sorted(maps.Keys((*p)[name])) {
			options = append(options, key+"="+(*p)[name][key])
		}
		all = append(all, name+":"+strings.Join(options, ","))
	}
	return strings.Join(all, " ")
}

// Type names the value for people.
func (p *poolConfigs) Type() string { return "pool" }

func (p *poolConfigs) names() []string { return slices.Sorted(maps.Keys(*p)) }

// Set adds a pool.
func (p *poolConfigs) Set(text string) error {
	name, rest, _ := strings.Cut(text, ":")
	options := map[string]string{}
	for _, word := range strings.Split(rest, ",") {
		if word == "" {
			continue
		}
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return fmt.Errorf("pool %s: %q: want OPTION=VALUE", name, word)
		}
		if _, twice := options[key]; twice {
			return fmt.Errorf("pool %s: option %s is given twice", name, key)
		}
		options[key] = value
	}
	return p.add(name, options)
}

func (p *poolConfigs) add(name string, options map[string]string) error {
	if !poolName.MatchString(name) {
		return fmt.Errorf("pool %q: want 1 to 63 of a-z, 0-9 and -, - neither first nor last", name)
	}
	if _, twice := (*p)[name]; twice {
		return fmt.Errorf("pool %s is given twice", name)
	}
	if *p == nil {
		*p = poolConfigs{}
	}
	(*p)[name] = options
	_, err := parsePool(options)
	if err != nil {
		return fmt.Errorf("pool %s: %w", name, err)
	}
	return nil
}

// setMap takes the pools of a file.
func (p *poolConfigs) setMap(value any) error {
	pools, ok := value.(map[string]any)
	if !ok {
		return errors.New("want the pools by name")
	}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		given, ok := pools[name].(map[string]any)
		if !ok && pools[name] != nil {
			return fmt.Errorf("pool %s: want its options by name", name)
		}
		options := map[string]string{}
		for _, key := range slices.Sorted(maps.Keys(given)) {
			value, err := scalar(given[key])
			if err != nil {
				return fmt.Errorf("pool %s: %s: %w", name, key, err)
			}
			options[key] = value
		}
		if err := p.add(name, options); err != nil {
			return err
		}
	}
	return nil
}
