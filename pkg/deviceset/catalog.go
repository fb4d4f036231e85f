package deviceset

import (
	"fmt"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A catalog is all that a pool does not keep itself: a value that records change,
// one by one. What it says of a device that an open operation is about is not yet
// so, or no longer.
type catalog struct {
	Pool       poolRecord  `json:"pool"`
	Op         uint64      `json:"op"`         // the highest operation number so far
	Cursor     dm.DeviceID `json:"cursor"`     // the id to try next
	Generation uint64      `json:"generation"` // the pool's transaction id
	Raising    bool        `json:"raising"`    // the pool may still have the one before
	Fence      uint64      `json:"fence"`      // the label has all frames up to this one

	devices    map[string]*device
	names      []string // of devices that a caller named, sorted
	open       map[uint64]*operation
	making     map[string]*operation // those of open that create, by name
	quarantine map[dm.DeviceID]quarantined
	ids        map[dm.DeviceID]struct{} // of all of them
	freed      map[dm.DeviceID]struct{} // since the last checkpoint
	promised   int64                    // bytes that over-provisioning is about, of open operations too
	size       int                      // about what a checkpoint takes, in bytes
}

// A poolRecord is what a pool is and where it lies.
type poolRecord struct {
	UUID      string     `json:"uuid"`
	Secret    string     `json:"secret,omitempty"`
	Kind      poolKind   `json:"kind"`
	Data      string     `json:"data"`               // path, or for an existing pool its name
	Metadata  string     `json:"metadata,omitempty"` // path
	BlockSize dm.Sectors `json:"block_size"`
	// Given is how much of the metadata device the pool was given: the rest is held
	// back for when it runs short.
	Given dm.Sectors `json:"metadata_given,omitempty"`
	Label int64      `json:"label"` // size of thin device 0, in bytes
	Made  bool       `json:"made"`
}

// secret returns what only those know who can read the pool's disks or its root. Pools that
// were made before there was one have the UUID.
func (r poolRecord) secret() string {
	if r.Secret == "" {
		return r.UUID
	}
	return r.Secret
}

// A poolKind tells what a pool lies on.
type poolKind string

const (
	poolLoop     poolKind = "loop"     // files under the root
	poolDevices  poolKind = "devices"  // a data and a metadata device
	poolExisting poolKind = "existing" // somebody else's table
)

// A device is a named thin device.
type device struct {
	Name       string            `json:"name"`
	ID         dm.DeviceID       `json:"id"`
	Op         uint64            `json:"op"`   // the operation that made it
	Size       int64             `json:"size"` // bytes, whole blocks
	Parent     string            `json:"parent,omitempty"`
	FS         string            `json:"fs"`
	Formatting bool              `json:"formatting,omitempty"` // mkfs has begun, and not ended that we know of
	Created    int64             `json:"created"`              // Unix seconds, by the machine's clock
	ReadOnly   bool              `json:"read_only,omitempty"`
	Layer      bool              `json:"layer,omitempty"`   // descends from a base device
	Adopted    bool              `json:"adopted,omitempty"` // and never to be formatted, whatever it holds
	Labels     map[string]string `json:"labels,omitempty"`
	Born       birth             `json:"born"`
}

// A birth is what the pool noted when a thin device was made. No two thin devices
// of one id have the same.
type birth struct {
	Generation uint64  `json:"generation"` // the pool's transaction id
	Time       *uint32 `json:"time,omitempty"`
}

// matches reports whether b can be the birth that a pool has on record.
func (b birth) matches(transactionID uint64, created uint32) bool {
	return b.Generation == transactionID && (b.Time == nil || *b.Time == created)
}

// promised returns how many bytes of the device's size are promised to somebody:
// none of a layer or of a read-only snapshot.
func (d *device) promised() int64 {
	if d.Layer || d.ReadOnly {
		return 0
	}
	return d.Size
}

// An operation is a create or a delete of which no end is on record.
type operation struct {
	Op     uint64       `json:"op"`
	Delete bool         `json:"delete,omitempty"`
	Origin *dm.DeviceID `json:"origin,omitempty"` // of a snapshot
	Device device       `json:"device"`
	Frame  uint64       `json:"frame"` // in which it was begun
}

// A quarantined thin device is in the pool, and nobody can say whose it is.
type quarantined struct {
	ID     dm.DeviceID `json:"id"`
	Name   string      `json:"name,omitempty"` // that it may have had
	Born   birth       `json:"born"`
	Mapped int64       `json:"mapped"` // bytes, when it was found
	Why    string      `json:"why"`
}

func newCatalog(pool poolRecord) *catalog {
	c := &catalog{Pool: pool, Cursor: 1}
	c.make()
	c.size = pool.weight()
	return c
}

func (c *catalog) make() {
	c.devices = map[string]*device{}
	c.open = map[uint64]*operation{}
	c.making = map[string]*operation{}
	c.quarantine = map[dm.DeviceID]quarantined{}
	c.ids = map[dm.DeviceID]struct{}{}
	c.freed = map[dm.DeviceID]struct{}{}
}

// device returns a device by name.
func (c *catalog) device(name string) (*device, error) {
	if d := c.devices[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
}

// canName reports whether d is a device whose name nobody has.
func (c *catalog) canName(d *device) bool {
	return d != nil && c.devices[d.Name] == nil && c.making[d.Name] == nil
}

// isTaken reports whether a thin device is somebody's, is being made or deleted, or is
// in quarantine.
func (c *catalog) isTaken(id dm.DeviceID) bool {
	_, taken := c.ids[id]
	return taken
}

// isKept reports whether a thin device is in quarantine.
func (c *catalog) isKept(id dm.DeviceID) bool {
	_, kept := c.quarantine[id]
	return kept
}

// deletions counts the open deletes.
func (c *catalog) deletions() int { return len(c.open) - len(c.making) }

func (c *catalog) add(d *device) {
	c.devices[d.Name] = d
	c.ids[d.ID] = struct{}{}
	c.size += d.weight()
	c.promised += d.promised()
	if !isBase(d.Name) {
		at, _ := slices.BinarySearch(c.names, d.Name)
		c.names = slices.Insert(c.names, at, d.Name)
	}
}

func (c *catalog) remove(d *device) {
	delete(c.devices, d.Name)
	delete(c.ids, d.ID)
	c.size -= d.weight()
	c.promised -= d.promised()
	if at, found := slices.BinarySearch(c.names, d.Name); found {
		c.names = slices.Delete(c.names, at, at+1)
	}
}

func (c *catalog) begin(o *operation) {
	c.open[o.Op] = o
	c.ids[o.Device.ID] = struct{}{}
	c.size += o.Device.weight()
	c.promised += o.Device.promised()
	if !o.Delete {
		c.making[o.Device.Name] = o
	}
}

func (c *catalog) finish(o *operation) {
	delete(c.open, o.Op)
	delete(c.ids, o.Device.ID)
	c.size -= o.Device.weight()
	c.promised -= o.Device.promised()
	if !o.Delete {
		delete(c.making, o.Device.Name)
	}
}

func (c *catalog) keepAway(q quarantined) {
	c.quarantine[q.ID] = q
	c.ids[q.ID] = struct{}{}
	c.size += quarantinedWeight
}

// weight is about what a device takes in a checkpoint, and never less: numbers
// are counted with all their digits, and text as if each byte were escaped where
// it may be.
func (d *device) weight() int {
	const fixed = 320
	n := fixed + 2*len(d.Name) + len(d.Parent) + len(d.FS)
	for key, value := range d.Labels {
		n += len(key) + 6*len(value) + 8
	}
	return n
}

const quarantinedWeight = 512

// weight is what the first line of a checkpoint takes, in the same way.
func (r poolRecord) weight() int {
	const fixed = 480
	return fixed + 6*(len(r.Data)+len(r.Metadata))
}

// nextID returns the id to try next and moves on. Beyond the last one it begins
// anew, but for ids whose end is not yet in a checkpoint: a journal that is cut
// off there still has their operation.
func (c *catalog) nextID(after dm.DeviceID) (dm.DeviceID, error) {
	for range 1 << 24 {
		after = max(1, (after+1)&dm.MaxDeviceID)
		_, used := c.ids[after]
		_, freed := c.freed[after]
		if !used && !freed {
			return after, nil
		}
	}
	return 0, fmt.Errorf("%w: all thin device ids are in use", ErrPoolFull)
}
