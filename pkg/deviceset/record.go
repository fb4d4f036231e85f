package deviceset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A record is one line of a frame: a change of the catalog.
type record struct {
	Do     verb              `json:"do"`
	Op     uint64            `json:"op,omitempty"`
	Name   string            `json:"name,omitempty"`
	ID     dm.DeviceID       `json:"id,omitempty"`
	Origin *dm.DeviceID      `json:"origin,omitempty"`
	Device *device           `json:"device,omitempty"`
	Size   int64             `json:"size,omitempty"`
	FS     string            `json:"fs,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Number uint64            `json:"number,omitempty"`
	Time   *uint32           `json:"time,omitempty"`
}

// A verb says what a record does.
type verb string

const (
	doMade       verb = "made"       // the pool is complete
	doCreate     verb = "create"     // Device is about to be made by operation Op
	doDelete     verb = "delete"     // device Name has none any more and is about to go, by operation Op
	doEnd        verb = "end"        // operation Op was carried out
	doAbort      verb = "abort"      // the create Op was not, and never will be
	doGrow       verb = "grow"       // device Name has Size bytes
	doFormatting verb = "formatting" // device Name is about to be formatted
	doFormatted  verb = "formatted"  // device Name has file system FS
	doLabel      verb = "label"      // device Name has Labels
	doRaise      verb = "raise"      // the pool's transaction id is about to become Number
	doRaised     verb = "raised"     // it has
	doBorn       verb = "born"       // the pool made device Name at Time
	doAdopt      verb = "adopt"      // a thin device in quarantine, or an orphan, is Device from now on
	doGive       verb = "give"       // the pool has Size bytes of its metadata device
)

// errBadRecord says that a record does not fit to those before it: a bug, or a
// journal of something else.
var errBadRecord = errors.New("the record does not fit")

// clashes reports whether two records are about the same: only one of them may be on
// its way at a time.
func (r *record) clashes(o *record) bool {
	return r.name() != "" && r.name() == o.name() ||
		r.Op != 0 && r.Op == o.Op ||
		r.Device != nil && o.Device != nil && r.Device.ID == o.Device.ID
}

// name returns the name of the device that r is about.
func (r *record) name() string {
	if r.Device != nil {
		return r.Device.Name
	}
	return r.Name
}

// fits returns nil if a record can be applied to c, else errBadRecord.
func (c *catalog) fits(r record) error {
	fits := false
	switch r.Do {
	case doMade, doRaise, doRaised, doGive:
		fits = true
	case doCreate:
		fits = c.open[r.Op] == nil && c.canName(r.Device) && !c.isTaken(r.Device.ID)
	case doAdopt:
		fits = c.canName(r.Device) && (c.isKept(r.Device.ID) || !c.isTaken(r.Device.ID))
	case doDelete:
		fits = c.open[r.Op] == nil && c.devices[r.Name] != nil
	case doEnd:
		fits = c.open[r.Op] != nil
	case doAbort:
		fits = c.open[r.Op] != nil && !c.open[r.Op].Delete
	case doGrow, doFormatting, doFormatted, doLabel, doBorn:
		fits = c.devices[r.Name] != nil
	}
	if !fits {
		return fmt.Errorf("%w: %+v", errBadRecord, r)
	}
	return nil
}

// apply changes c by a record of a frame. One that does not fit changes nothing.
func (c *catalog) apply(r record, frame uint64) error {
	if err := c.fits(r); err != nil {
		return err
	}
	c.Op = max(c.Op, r.Op)
	switch r.Do {
	case doMade:
		c.Pool.Made = true
	case doCreate:
		c.applyCreate(r, frame)
	case doDelete:
		c.applyDelete(r, frame)
	case doEnd, doAbort:
		c.applyEnd(r)
	case doRaise:
		c.Generation, c.Raising = r.Number, true
	case doRaised:
		c.Raising = false
	case doAdopt:
		c.applyAdopt(r)
	case doGive:
		c.Pool.Given = dm.SectorsIn(r.Size)
	case doGrow, doFormatting, doFormatted, doLabel, doBorn:
		c.replace(c.devices[r.Name].changedBy(r))
	}
	return nil
}

func (c *catalog) applyCreate(r record, frame uint64) {
	d := *r.Device
	d.Op = r.Op
	c.begin(&operation{Op: r.Op, Origin: r.Origin, Device: d, Frame: frame})
	c.Cursor = d.ID + 1
}

func (c *catalog) applyDelete(r record, frame uint64) {
	d := c.devices[r.Name]
	c.remove(d)
	c.begin(&operation{Op: r.Op, Delete: true, Device: *d, Frame: frame})
}

// applyEnd ends an operation. An end that is not an abort proves that the pool
// has committed since, and with that, that the label has the operation's frame.
func (c *catalog) applyEnd(r record) {
	o := c.open[r.Op]
	c.finish(o)
	if r.Do == doEnd {
		c.Fence = max(c.Fence, o.Frame)
	}
	if r.Do == doEnd && !o.Delete {
		d := o.Device
		c.add(&d)
	} else {
		c.freed[o.Device.ID] = struct{}{}
	}
}

func (c *catalog) applyAdopt(r record) {
	if c.isKept(r.Device.ID) {
		delete(c.quarantine, r.Device.ID)
		delete(c.ids, r.Device.ID)
		c.size -= quarantinedWeight
	}
	d := *r.Device
	d.Op = r.Op
	c.add(&d)
}

// changedBy returns d as a record makes it.
func (d device) changedBy(r record) device {
	switch r.Do {
	case doGrow:
		d.Size = r.Size
	case doFormatting:
		d.Formatting = true
	case doFormatted:
		d.Formatting, d.FS = false, r.FS
	case doLabel:
		d.Labels = maps.Clone(r.Labels)
	case doBorn:
		d.Born.Time = r.Time
	}
	return d
}

// replace puts a device in the place of the one of its name: whoever has the old one
// keeps what it was.
func (c *catalog) replace(d device) {
	old := c.devices[d.Name]
	c.promised += d.promised() - old.promised()
	c.size += d.weight() - old.weight()
	c.devices[d.Name] = &d
}

// A demand is what a record adds to a catalog.
type demand struct {
	promised int64 // bytes, of sizes
	weight   int   // bytes, of a checkpoint
}

func (d demand) plus(e demand) demand {
	return demand{d.promised + e.promised, d.weight + e.weight}
}

// demandOf returns what a record that fits would add.
func (c *catalog) demandOf(r record) demand {
	var before, after device
	switch r.Do {
	case doCreate, doAdopt:
		return demand{r.Device.promised(), r.Device.weight()}
	case doGrow, doFormatting, doFormatted, doLabel, doBorn:
		before = *c.devices[r.Name]
		after = before.changedBy(r)
	}
	return demand{after.promised() - before.promised(), after.weight() - before.weight()}
}

// encodeRecords returns records as the body of a frame, a line each.
func encodeRecords(records []record) ([]byte, error) {
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	for _, r := range records {
		if err := lines.Encode(r); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// replay applies the body of a frame.
func (c *catalog) replay(body []byte, frame uint64) error {
	lines := json.NewDecoder(bytes.NewReader(body))
	for {
		var r record
		if err := lines.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("frame %d: %w", frame, err)
		}
		if err := c.apply(r, frame); err != nil {
			return fmt.Errorf("frame %d: %w", frame, err)
		}
	}
}

// A checkpointLine is a line of a checkpoint behind the first, which is the
// catalog itself.
type checkpointLine struct {
	Device      *device      `json:"device,omitempty"`
	Operation   *operation   `json:"operation,omitempty"`
	Quarantined *quarantined `json:"quarantined,omitempty"`
}

// checkpoint returns the whole catalog as text, a line for each thing, in order.
func (c *catalog) checkpoint() ([]byte, error) {
	var b bytes.Buffer
	b.Grow(c.size)
	lines := json.NewEncoder(&b)
	err := lines.Encode(c)
	for _, name := range slices.Sorted(maps.Keys(c.devices)) {
		err = errors.Join(err, lines.Encode(checkpointLine{Device: c.devices[name]}))
	}
	for _, op := range slices.Sorted(maps.Keys(c.open)) {
		err = errors.Join(err, lines.Encode(checkpointLine{Operation: c.open[op]}))
	}
	for _, id := range slices.Sorted(maps.Keys(c.quarantine)) {
		q := c.quarantine[id]
		err = errors.Join(err, lines.Encode(checkpointLine{Quarantined: &q}))
	}
	return b.Bytes(), err
}

// parseCheckpoint reads what checkpoint returned.
func parseCheckpoint(text []byte) (*catalog, error) {
	c := &catalog{}
	c.make()
	lines := json.NewDecoder(bytes.NewReader(text))
	if err := lines.Decode(c); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	c.size = c.Pool.weight()
	for {
		var l checkpointLine
		if err := lines.Decode(&l); errors.Is(err, io.EOF) {
			return c, nil
		} else if err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
		if err := c.take(l); err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
	}
}

// take adds what a line of a checkpoint has. No two have one id or one name, but a
// device may have that of one whose deletion is open.
func (c *catalog) take(l checkpointLine) error {
	var id dm.DeviceID
	var taken bool
	var add func()
	switch d, o, q := l.Device, l.Operation, l.Quarantined; {
	case d != nil:
		id, taken, add = d.ID, c.devices[d.Name] != nil, func() { c.add(d) }
	case o != nil:
		name := o.Device.Name
		taken = c.open[o.Op] != nil || !o.Delete && (c.devices[name] != nil || c.making[name] != nil)
		id, add = o.Device.ID, func() { c.begin(o) }
	case q != nil:
		id, add = q.ID, func() { c.keepAway(*q) }
	default:
		return fmt.Errorf("%w: a line with nothing that is known", errBadRecord)
	}
	if _, used := c.ids[id]; used || taken {
		return fmt.Errorf("%w: thin device %d comes twice, or its name", errBadRecord, id)
	}
	add()
	return nil
}
