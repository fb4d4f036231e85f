package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A retiredPool is one that has a root and is not in the configuration.
type retiredPool struct {
	config *config
	name   string
}

// A root is named after its pool. One that had to make room for another pool of its name
// ends with the begin of its own UUID.
var rootName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[0-9a-f]{8})?$`)

func isRootName(name string) bool { return rootName.MatchString(name) }

// files are those of this machine, of which no more is needed to read a root.
var files deviceset.Files = &deviceset.Host{}

// rootNames returns the names of all roots.
func (c *config) rootNames() (names []string) {
	entries, err := os.ReadDir(filepath.Dir(c.root("any")))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		klog.ErrorS(err, "Pools that are not in the configuration any more are not looked for")
	}
	for _, e := range entries {
		if e.IsDir() && isRootName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// retired returns the pools that are on disk and not in the configuration.
func (c *config) retired() (pools []retiredPool) {
	for _, name := range c.rootNames() {
		if _, configured := c.Pools[name]; configured {
			continue
		}
		if _, err := deviceset.ReadRoot(files, c.root(name)); errors.Is(err, deviceset.ErrNoPool) {
			continue
		}
		pools = append(pools, retiredPool{c, name})
	}
	return pools
}

func (r retiredPool) root() string { return r.config.root(r.name) }

// options returns those that the pool was last opened with, or else what its journal has
// of them.
func (r retiredPool) options(content deviceset.RootContent) (poolConfig, error) {
	if given, ok := recall(r.root()); ok {
		return parsePool(given)
	}
	if content.Options == nil {
		return poolConfig{}, fmt.Errorf("nobody knows what it lies on, since what %s has is damaged (%w): configure it again", r.root(), content.Damage)
	}
	p, err := parsePool(nil)
	p.options = append(p.options, content.Options...)
	return p, err
}

// growTo returns how large the pool might become when it was last opened.
func (r retiredPool) growTo() int64 {
	given, _ := recall(r.root())
	p, _ := parsePool(given)
	return p.growTo
}

// open opens the pool, or closes it if nothing is in it.
func (r retiredPool) open(machine func() (machine, error)) (layers *graphdriver.Driver, err error) {
	defer func() {
		if err != nil && !errors.As(err, new(*csi.EmptyPool)) {
			err = fmt.Errorf("it is not in the configuration, and cannot be opened: %w", err)
		}
	}()
	content, err := deviceset.ReadRoot(files, r.root())
	if err != nil {
		return nil, err
	}
	if err := r.checkAlone(content.PoolUUID); err != nil {
		return nil, err
	}
	p, err := r.options(content)
	if err != nil {
		return nil, err
	}
	if content.Empty {
		return nil, r.close(machine, content, p.options)
	}
	return openPool(machine, r.root(), false, p.options)
}

// checkAlone refuses a root that is the copy of another one, or of which another one is:
// only one of them is the pool's.
func (r retiredPool) checkAlone(uuid string) error {
	for _, name := range r.config.rootNames() {
		if name == r.name || uuid == "" {
			continue
		}
		if other, _ := deviceset.ReadRoot(files, r.config.root(name)); other.PoolUUID == uuid {
			return fmt.Errorf("%s and %s are of the same pool %s: move away the one that is a copy, or older", r.root(), r.config.root(name), uuid)
		}
	}
	return nil
}

// close takes down what a process that died has left of the pool, and says that it is
// empty.
func (r retiredPool) close(open func() (machine, error), content deviceset.RootContent, options []string) error {
	active, err := isActive(open, content.PoolUUID)
	if err == nil && active {
		var layers *graphdriver.Driver
		if layers, err = openPool(open, r.root(), false, options); err == nil {
			err = layers.Cleanup()
		}
	}
	if err != nil {
		return err
	}
	return &csi.EmptyPool{Secret: content.PoolSecret, Root: r.root()}
}

// isActive reports whether there are devices of a pool.
func isActive(open func() (machine, error), uuid string) (bool, error) {
	if uuid == "" {
		return false, nil
	}
	m, err := open()
	if err != nil {
		return false, err
	}
	devices, err := dm.List(m, "", deviceset.UUIDPrefix+uuid+"-")
	return len(devices) > 0, errors.Join(err, m.Close())
}

// makeRoom gives pools on files another name where their own is now that of a pool on
// disks: they were there for a first look, and are served on as retired.
func (c *config) makeRoom() {
	for _, name := range c.Pools.names() {
		aside, err := c.moveAside(name)
		if err != nil {
			klog.ErrorS(err, "A pool on files keeps its name from one on disks", "pool", name)
		} else if aside != "" {
			klog.InfoS("A pool on files makes room for one on disks", "pool", name, "as", aside)
		}
	}
}

func (c *config) moveAside(name string) (aside string, err error) {
	p, _ := parsePool(c.Pools[name])
	wanted, _, err := deviceset.ParseOptions(p.options)
	if err != nil || wanted.DataDevice == "" && wanted.ThinPool == "" {
		return "", err
	}
	content, err := deviceset.ReadRoot(files, c.root(name))
	if err != nil || !content.OnFiles {
		return "", nil // opening it tells what is wrong
	}
	aside = fmt.Sprintf("%s.%.8s", name, content.PoolUUID)
	if err := os.Rename(c.root(name), c.root(aside)); err != nil {
		return "", err
	}
	return aside, syncDir(filepath.Dir(c.root(name)))
}
