package dmsim

import (
	"fmt"
	"maps"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Clone returns a second machine in the state of k, for trying what else might
// happen from here. Neither hears of the other from then on. Files that are open
// count as open in the clone too, where CloseAll alone can close them, and nobody
// waits in it: what waits in k, such as a write to a full pool, never was.
func (k *Kernel) Clone() *Kernel {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := cloning{
		to: New(), devices: make(map[*device]*device, len(k.devices)),
		pools: map[*pool]*pool{}, metas: map[*metadata]*metadata{},
	}
	c.to.events, c.to.opened = k.events, k.opened
	for _, d := range k.disks {
		c.to.disks = append(c.to.disks, c.disk(d))
	}
	for _, d := range k.devices {
		c.to.devices = append(c.to.devices, c.device(d))
	}
	for number, f := range k.files {
		c.to.files[number] = &File{kernel: c.to, store: c.storage(f.store), number: number, exclusive: f.exclusive}
	}
	return c.to
}

// cloning remembers what has its copy already, for the copies point at each
// other as the originals do.
type cloning struct {
	to      *Kernel
	devices map[*device]*device
	pools   map[*pool]*pool
	metas   map[*metadata]*metadata
}

// disk shares the pages, which never change: a write makes a new one.
func (c *cloning) disk(d *Disk) *Disk {
	copied := *d
	copied.kernel = c.to
	copied.durable, copied.written = maps.Clone(d.durable), maps.Clone(d.written)
	copied.order = slices.Clone(d.order)
	copied.metadata = c.metadata(d.metadata)
	return &copied
}

func (c *cloning) device(d *device) *device {
	if d == nil {
		return nil
	}
	if copied, ok := c.devices[d]; ok {
		return copied
	}
	copied := *d
	c.devices[d] = &copied // before its tables, which lead back to it
	copied.kernel, copied.inFlight = c.to, 0
	copied.live, copied.inactive = c.table(d.live), c.table(d.inactive)
	copied.pool = c.pool(d.pool)
	return &copied
}

func (c *cloning) storage(s storage) storage {
	if d, ok := s.(*Disk); ok {
		return c.to.disks[d.dev.Minor()]
	}
	return c.device(s.(*device))
}

func (c *cloning) table(t *table) *table {
	if t == nil {
		return nil
	}
	copied := &table{
		segments: make([]segment, len(t.segments)), held: make([]storage, len(t.held)), below: slices.Clone(t.below),
	}
	for i, s := range t.held {
		copied.held[i] = c.storage(s)
	}
	for i, s := range t.segments {
		copied.segments[i] = segment{s.line, c.target(s.target)}
	}
	return copied
}

func (c *cloning) target(t target) target {
	switch t := t.(type) {
	case zero, errorTarget:
		return t
	case linear:
		return c.linear(t)
	case flakey:
		t.linear = c.linear(t.linear)
		return t
	case *thin:
		return &thin{c.pool(t.pool), c.device(t.device), t.id}
	case *poolTarget:
		return &poolTarget{c.pool(t.pool), t.conf, t.length}
	}
	panic(fmt.Sprintf("dmsim: nobody knows how to clone a %T", t))
}

func (c *cloning) linear(l linear) linear { return linear{c.storage(l.below), l.start} }

func (c *cloning) pool(p *pool) *pool {
	if p == nil {
		return nil
	}
	if copied, ok := c.pools[p]; ok {
		return copied
	}
	copied := *p
	c.pools[p] = &copied
	copied.kernel, copied.device = c.to, c.device(p.device)
	copied.metaStore, copied.dataStore = c.storage(p.metaStore), c.storage(p.dataStore)
	copied.disk = c.to.disks[p.disk.dev.Minor()]
	copied.meta = c.metadata(p.meta)
	copied.open = maps.Clone(p.open)
	return &copied
}

func (c *cloning) metadata(m *metadata) *metadata {
	if m == nil {
		return nil
	}
	if copied, ok := c.metas[m]; ok {
		return copied
	}
	copied := m.clone()
	c.metas[m] = copied
	return copied
}

// clone returns a copy of m, with the same to undo.
func (m *metadata) clone() *metadata {
	c := *m
	c.undo = slices.Clip(m.undo) // each appends to an array of its own
	c.refs, c.freed = maps.Clone(m.refs), maps.Clone(m.freed)
	c.thins = make(map[dm.DeviceID]*thinDetails, len(m.thins))
	for id, t := range m.thins {
		c.thins[id] = t.clone()
	}
	return &c
}

func (t *thinDetails) clone() *thinDetails {
	c := *t
	c.mapped = maps.Clone(t.mapped)
	return &c
}
