package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is what the command line and the environment ask for.
type Config struct {
	Kernel  string
	Memory  string // as a kernel reads it: 512M, 2G
	CPUs    int
	Timeout time.Duration
	Disks   []Disk
	Out     string // absolute, or empty
	Tap     string // network device of this machine, or empty
	Command []string
}

// parseConfig reads the command line; what it leaves out comes from the
// environment, which is how `go test -exec` is steered.
func parseConfig(args []string, getenv func(string) string) (*Config, error) {
	or := func(variable, otherwise string) string {
		if value := getenv(variable); value != "" {
			return value
		}
		return otherwise
	}
	var c Config
	var disks stringList
	flags := flag.NewFlagSet("box", flag.ContinueOnError)
	flags.StringVar(&c.Kernel, "kernel", or("BOX", "uml"), "`uml`, smp or host ($BOX)")
	flags.StringVar(&c.Memory, "mem", or("BOX_MEM", "2G"), "`size` of the kernel's memory ($BOX_MEM)")
	cpus := flags.String("cpus", or("BOX_CPUS", "2"), "`number` of CPUs of the smp kernel ($BOX_CPUS)")
	timeout := flags.String("timeout", or("BOX_TIMEOUT", "10m"), "`time` until all is killed ($BOX_TIMEOUT)")
	flags.Var(&disks, "disk", "`FILE[:SIZE]` to be a block device, made if there is none; may be repeated ($BOX_DISKS)")
	flags.StringVar(&c.Out, "out", getenv("BOX_OUT"), "`folder` that the command shares with the outside ($BOX_OUT)")
	flags.StringVar(&c.Tap, "tap", "", "tap `device` of this network namespace that the kernel uml has the other end of, as vec0")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	c.Command = flags.Args()
	if disks == nil {
		disks = strings.Fields(getenv("BOX_DISKS"))
	}
	return &c, errors.Join(
		c.check(),
		c.setCPUs(*cpus),
		c.setTimeout(*timeout),
		c.setDisks(disks),
		c.setOut(),
	)
}

var memoryForm = regexp.MustCompile(`^[1-9][0-9]*[MG]$`)

func (c *Config) check() error {
	if _, ok := kernels[c.Kernel]; !ok {
		return fmt.Errorf("kernel %q is none of %s", c.Kernel, strings.Join(slices.Sorted(maps.Keys(kernels)), ", "))
	}
	if !memoryForm.MatchString(c.Memory) {
		return fmt.Errorf("memory %q is not like 512M or 2G", c.Memory)
	}
	if c.Tap != "" && c.Kernel != "uml" {
		return fmt.Errorf("kernel %s takes no tap device, only uml does", c.Kernel)
	}
	if len(c.Command) == 0 {
		return errors.New("no command to run; see box -help")
	}
	return nil
}

func (c *Config) setCPUs(s string) (err error) {
	c.CPUs, err = strconv.Atoi(s)
	return err
}

func (c *Config) setTimeout(s string) (err error) {
	c.Timeout, err = time.ParseDuration(s)
	return err
}

func (c *Config) setDisks(disks []string) error {
	for _, s := range disks {
		disk, err := parseDisk(s)
		if err != nil {
			return err
		}
		c.Disks = append(c.Disks, disk)
	}
	return nil
}

func (c *Config) setOut() (err error) {
	if c.Out != "" {
		c.Out, err = filepath.Abs(c.Out)
	}
	return err
}

// memoryBytes returns the size that Memory spells.
func (c *Config) memoryBytes() int64 {
	n, _ := parseSize(c.Memory) // check has seen it
	return n
}

// stringList is a flag that may be repeated.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, " ") }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }
