package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

var poolName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// A poolConfig is what a pool is made with.
type poolConfig struct {
	options []string // of the device set
	growTo  int64    // bytes
}

// parsePool checks a pool's options. A device of a pool that serves CSI is deleted at
// once or not at all, so that the orchestrator hears of it; they are not mounted lazily
// away, either.
func parsePool(given map[string]string) (p poolConfig, err error) {
	p.options = []string{"dm.use_deferred_deletion=false"}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == "grow-to" {
			if p.growTo, err = deviceset.ParseSize(given[key]); err != nil {
				return p, fmt.Errorf("grow-to: %w", err)
			}
			continue
		}
		if why, ours := decidedHere[key]; ours {
			return p, fmt.Errorf("%s is not to be chosen: %s", key, why)
		}
		p.options = append(p.options, "dm."+key+"="+given[key])
	}
	_, _, err = deviceset.ParseOptions(p.options)
	return p, err
}

// decidedHere are options that would have the orchestrator told what is not so.
var decidedHere = map[string]string{
	"use_deferred_deletion": "a volume that is deleted is gone, or the call fails",
	"lazy_unmount":          "a volume that is unstaged is in no use, or the call fails",
}

// checkDisks refuses a disk that two pools are to lie on, or that is named twice.
func (p poolConfigs) checkDisks() error {
	owners := map[string]string{}
	for _, pool := range p.names() {
		for _, option := range []string{"datadev", "metadatadev", "thinpooldev"} {
			path := p[pool][option]
			if path == "" {
				continue
			}
			if real, err := filepath.EvalSymlinks(path); err == nil {
				path = real
			}
			if other, taken := owners[path]; taken {
				return fmt.Errorf("--pools: %s is %s of pool %s, and %s", path, option, pool, other)
			}
			owners[path] = fmt.Sprintf("%s of pool %s", option, pool)
		}
	}
	return nil
}

// root returns where a pool's state is.
func (c *config) root(pool string) string { return filepath.Join(c.StateDir, "pools", pool) }

// openers returns the pools, each with what opens it: those of the configuration, and
// those that were in it before and are still on disk.
func (c *config) openers(o func() observer) (pools []*csi.Pool) {
	c.makeRoom()
	open := func() (machine, error) { return observedThisMachine(c.Node, o()) }
	for _, name := range c.Pools.names() {
		p, _ := parsePool(c.Pools[name]) // it was checked when it was read
		pools = append(pools, &csi.Pool{
			Name: name, MostBytes: p.growTo,
			Open: func() (*graphdriver.Driver, error) { return c.openConfigured(name, open) },
		})
	}
	for _, r := range c.retired() {
		pools = append(pools, &csi.Pool{
			Name: r.name, MostBytes: r.growTo(), Retired: true,
			Open: func() (*graphdriver.Driver, error) { return r.open(open) },
		})
	}
	return pools
}

func (c *config) openConfigured(name string, open func() (machine, error)) (*graphdriver.Driver, error) {
	p, _ := parsePool(c.Pools[name])
	layers, err := openPool(open, c.root(name), true, p.options)
	if err != nil || layers.Down() != nil {
		return layers, err
	}
	if err := remember(c.root(name), c.Pools[name]); err != nil {
		klog.ErrorS(err, "Without its options, the pool might not be found if it were not in the configuration any more", "pool", name)
	}
	return layers, nil
}

// openPool opens the pool of a root, and makes one if there is none and make is set.
// Patterns in the paths of its disks are looked up each time: disks may come late.
func openPool(open func() (machine, error), root string, make bool, options []string) (*graphdriver.Driver, error) {
	options, err := findDisks(options)
	if err != nil {
		return nil, err
	}
	m, err := open()
	if err != nil {
		return nil, err
	}
	set, err := deviceset.Open(m, root, make, options, nil, nil)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return graphdriver.New(set, root, nil, nil)
}

// An observer is told how long things took.
type observer interface {
	ObserveIoctl(command string, took time.Duration)
	ObserveTool(tool, fs string, took time.Duration)
}

// observedKernel tells how long device-mapper took.
type observedKernel struct {
	dm.Kernel
	observer
}

func (k observedKernel) Do(r dm.Request) (dm.Reply, error) {
	begin := time.Now()
	reply, err := k.Kernel.Do(r)
	k.ObserveIoctl(r.Command.String(), time.Since(begin))
	return reply, err
}

func observedThisMachine(name string, o observer) (machine, error) {
	host, err := deviceset.ThisMachine()
	if err != nil {
		return nil, err
	}
	host.Name = name
	return observedMachine{host, traced{observedKernel{host, o}}, o}, nil
}

// observedMachine is this machine with a kernel and tools that are observed.
type observedMachine struct {
	*deviceset.Host
	kernel dm.Kernel
	observer
}

func (m observedMachine) Do(r dm.Request) (dm.Reply, error) { return m.kernel.Do(r) }

func (m observedMachine) Make(ctx context.Context, i dm.Info, t filesystem.Type, o filesystem.MakeOptions) error {
	defer m.took("mkfs", t, time.Now())
	return m.Host.Make(ctx, i, t, o)
}

func (m observedMachine) Check(ctx context.Context, i dm.Info, t filesystem.Type) error {
	defer m.took("fsck", t, time.Now())
	return m.Host.Check(ctx, i, t)
}

func (m observedMachine) GrowFS(ctx context.Context, i dm.Info, path string, t filesystem.Type) error {
	defer m.took("grow", t, time.Now())
	return m.Host.GrowFS(ctx, i, path, t)
}

func (m observedMachine) took(tool string, t filesystem.Type, begin time.Time) {
	m.ObserveTool(tool, string(t), time.Since(begin))
}
