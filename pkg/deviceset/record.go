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

// apply changes c by a record of a frame. One that does not fit changes nothing.
func (c *catalog) apply(r record, frame uint64) error {
	err := c.change(r, frame)
	if err == nil {
		c.Op = max(c.Op, r.Op)
	}
	return err
}

func (c *catalog) change(r record, frame uint64) error {
	switch r.Do {
	case doMade:
		c.Pool.Made = true
	case doCreate:
		return c.applyCreate(r, frame)
	case doDelete:
		return c.applyDelete(r, frame)
	case doEnd, doAbort:
		return c.applyEnd(r)
	case doRaise:
		c.Generation, c.Raising = r.Number, true
	case doRaised:
		c.Raising = false
	case doAdopt:
		return c.applyAdopt(r)
	case doGive:
		c.Pool.Given = dm.SectorsIn(r.Size)
	case doGrow, doFormatting, doFormatted, doLabel, doBorn:
		return c.applyToDevice(r)
	default:
		return fmt.Errorf("%w: nobody knows how to %q", errBadRecord, r.Do)
	}
	return nil
}

func (c *catalog) applyCreate(r record, frame uint64) error {
	if r.Device == nil || c.open[r.Op] != nil {
		return fmt.Errorf("%w: create %d", errBadRecord, r.Op)
	}
	if _, used := c.ids[r.Device.ID]; used || c.devices[r.Device.Name] != nil || c.making[r.Device.Name] != nil {
		return fmt.Errorf("%w: create %s as %d", errBadRecord, r.Device.Name, r.Device.ID)
	}
	d := *r.Device
	d.Op = r.Op
	c.begin(&operation{Op: r.Op, Origin: r.Origin, Device: d, Frame: frame})
	c.Cursor = d.ID + 1
	return nil
}

func (c *catalog) applyDelete(r record, frame uint64) error {
	d := c.devices[r.Name]
	if d == nil || c.open[r.Op] != nil {
		return fmt.Errorf("%w: delete %s", errBadRecord, r.Name)
	}
	c.remove(d)
	c.begin(&operation{Op: r.Op, Delete: true, Device: *d, Frame: frame})
	return nil
}

// applyEnd ends an operation. An end that is not an abort proves that the pool
// has committed since, and with that, that the label has the operation's frame.
func (c *catalog) applyEnd(r record) error {
	o := c.open[r.Op]
	if o == nil || r.Do == doAbort && o.Delete {
		return fmt.Errorf("%w: %s %d", errBadRecord, r.Do, r.Op)
	}
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
	return nil
}

func (c *catalog) applyAdopt(r record) error {
	if r.Device == nil || c.devices[r.Device.Name] != nil || c.making[r.Device.Name] != nil {
		return fmt.Errorf("%w: %s", errBadRecord, r.Do)
	}
	if _, kept := c.quarantine[r.Device.ID]; kept {
		delete(c.quarantine, r.Device.ID)
		delete(c.ids, r.Device.ID)
		c.size -= quarantinedWeight
	}
	if _, used := c.ids[r.Device.ID]; used {
		return fmt.Errorf("%w: %s %d", errBadRecord, r.Do, r.Device.ID)
	}
	d := *r.Device
	d.Op = r.Op
	c.add(&d)
	return nil
}

// applyToDevice changes a device, in place of which there is a new one: whoever
// has the old one keeps what it was.
func (c *catalog) applyToDevice(r record) error {
	old := c.devices[r.Name]
	if old == nil {
		return fmt.Errorf("%w: %s %s", errBadRecord, r.Do, r.Name)
	}
	d := *old
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
	if d.counts() {
		c.counted += d.Size - old.Size
	}
	c.size += d.weight() - old.weight()
	c.devices[r.Name] = &d
	return nil
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
