package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// An adoptionRequest asks what adopting a pool would do, or with Yes to do it.
type adoptionRequest struct {
	Yes bool `json:"yes"`
}

// An adoption is what becomes, or would, of each device of a pool. Sizes are bytes.
type adoption struct {
	Pool    string          `json:"pool"`
	UUID    string          `json:"uuid"`
	Key     string          `json:"key"`  // with which the ids of its volumes begin
	From    string          `json:"from"` // the copy of the journal that was believed
	Done    bool            `json:"done"`
	Devices []adoptedDevice `json:"devices"`
	Problem string          `json:"problem,omitempty"` // why the agent could not open the pool afterwards
}

// What becomes of a device.
const (
	becomesKept        = "kept"
	becomesQuarantined = "quarantined"
	becomesLost        = "lost"
)

// An adoptedDevice is a device and what becomes of it.
type adoptedDevice struct {
	ID      dm.DeviceID `json:"thinID,omitempty"` // none, if it is lost
	Name    string      `json:"name,omitempty"`   // of what is quarantined, that it may have had
	Size    int64       `json:"size,omitempty"`   // of what is quarantined, how much it maps
	FS      string      `json:"fileSystem,omitempty"`
	Parent  string      `json:"parent,omitempty"`
	Becomes string      `json:"becomes"`
	Why     string      `json:"why,omitempty"`
}

func presentAdoption(pool string, a *deviceset.Adoption) adoption {
	present := adoption{Pool: pool, UUID: a.PoolUUID, Key: plugin.KeyOf(a.PoolSecret), From: a.From, Done: a.Done, Devices: []adoptedDevice{}}
	for _, d := range a.Devices {
		present.Devices = append(present.Devices, adoptedDevice{ID: d.ID, Name: d.Name, Size: d.Size, FS: d.FS, Parent: d.Parent, Becomes: becomesKept})
	}
	for _, q := range a.Quarantined {
		present.Devices = append(present.Devices, adoptedDevice{ID: q.ID, Name: q.Name, Size: q.Mapped, Becomes: becomesQuarantined, Why: q.Why})
	}
	for _, name := range a.Lost {
		present.Devices = append(present.Devices, adoptedDevice{Name: name, Becomes: becomesLost, Why: "the pool does not have it"})
	}
	return present
}

// adopt closes a pool that is open, and opens it again afterwards. What is mounted stays.
func (a *admin) adopt(pool string, want adoptionRequest) (adoption, error) {
	p, err := a.one(pool)
	if err != nil {
		return adoption{}, err
	}
	a.adopting.Lock()
	defer a.adopting.Unlock()
	var found *adoption
	openErr := p.While(func() (err error) {
		found, err = a.adoptClosed(pool, want.Yes)
		return err
	})
	if found == nil {
		return adoption{}, openErr
	}
	if openErr != nil {
		found.Problem = openErr.Error()
	}
	return *found, nil
}

// adoptClosed adopts a pool that nobody has open.
func (a *admin) adoptClosed(pool string, yes bool) (*adoption, error) {
	o, err := a.configured(pool)
	if err != nil {
		return nil, err
	}
	m, err := a.open()
	if err != nil {
		return nil, err
	}
	var done *deviceset.Adoption
	options, err := findDisks(o.options)
	if err == nil {
		done, err = deviceset.AdoptOn(m, a.root(pool), options, yes)
	}
	if err = errors.Join(err, m.Close()); err != nil {
		return nil, err
	}
	found := presentAdoption(pool, done)
	return &found, nil
}

// configured returns what a pool is made with, or was before it was taken out of the
// configuration.
func (a *admin) configured(pool string) (poolConfig, error) {
	given, known := a.config.Pools[pool]
	if !known && isRootName(pool) {
		given, known = recall(a.root(pool))
	}
	if !known {
		return poolConfig{}, fmt.Errorf("no pool %q is configured: the configuration has %s", pool, strings.Join(a.config.Pools.names(), ", "))
	}
	return parsePool(given)
}

// A deviceAdoption gives a name to a thin device that has none.
type deviceAdoption struct {
	ID   dm.DeviceID `json:"thinID"`
	Name string      `json:"name"`
	Size int64       `json:"size,omitempty"` // bytes; at least what it maps
}

func (a *admin) adoptDevice(pool string, want deviceAdoption) (listedDevice, error) {
	p, err := a.one(pool)
	if err != nil {
		return listedDevice{}, err
	}
	return want.in(p)
}

func (want deviceAdoption) in(p *csi.Pool) (listedDevice, error) {
	layers, err := p.Now()
	if err != nil {
		return listedDevice{}, fmt.Errorf("pool %s is not open: %w", p.Name, err)
	}
	if err := layers.AdoptDevice(want.ID, want.Name, want.Size); err != nil {
		return listedDevice{}, err
	}
	d, err := layers.Device(want.Name)
	return present(p, layers, d), err
}

// adoptDeviceClosed opens a pool that nobody has open for adoptDevice. It makes none.
func (a *admin) adoptDeviceClosed(pool string, want deviceAdoption) (d listedDevice, err error) {
	o, err := a.configured(pool)
	if err != nil {
		return d, err
	}
	p := &csi.Pool{Name: pool, Open: func() (*graphdriver.Driver, error) {
		return openPool(a.open, a.root(pool), false, o.options)
	}}
	if err := p.TryOpen(); err != nil {
		return d, err
	}
	d, err = want.in(p)
	return d, errors.Join(err, csi.New(csi.Options{Pools: []*csi.Pool{p}}).Close())
}
