package deviceset

import (
	"cmp"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// adopted decides what becomes of each device: it asks nobody.
func adopted(r poolRecord, record *catalog, pool []thinDevice, blockSize dm.Sectors, decided func(Rule)) (*catalog, *Adoption) {
	x := adopting{newCatalog(r), &Adoption{}, blockSize, decided}
	if record != nil {
		x.catalog.Op = record.Op
	}
	claims, highest := claimsOf(record), x.catalog.Cursor
	if record != nil {
		highest = max(highest, record.Cursor)
	}
	for _, t := range pool {
		highest = max(highest, t.ID)
		of, known := claims[t.ID]
		delete(claims, t.ID)
		born := of.device.Born.matches(t.TransactionID, t.Created)
		switch {
		case !known:
			of.away = "no record of it"
		case !born:
			of = claim{device: of.device, away: "its birth is not the one on record"}
		case of.away == "" && unformattedBase(of.device):
			of.away = "it is a base device that was not formatted"
		case of.away == "":
			x.take(t, of.device)
			continue
		}
		x.keepAway(t, of)
	}
	for _, of := range claims {
		if of.away == "" && !of.unheard {
			x.Lost = append(x.Lost, of.device.Name)
		}
	}
	slices.Sort(x.Lost)
	slices.SortFunc(x.Devices, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	x.catalog.Cursor = (highest + adoptionGap) & dm.MaxDeviceID
	return x.catalog, x.Adoption
}

// unformattedBase reports whether d is a base device that can be none any more: what
// is adopted is never formatted, and the next one is made when it is wanted.
func unformattedBase(d device) bool { return isBase(d.Name) && (d.FS == noFS || d.Formatting) }

// adopting is an adoption on its way, and the catalog that comes of it.
type adopting struct {
	catalog *catalog
	*Adoption
	blockSize dm.Sectors
	decided   func(Rule)
}

// take takes a thin device for the one on record.
func (x *adopting) take(t thinDevice, d device) {
	x.decided(RuleAdopted)
	created := t.Created
	d.Born.Time = &created
	d.Size = max(d.Size, t.extent.Sectors(x.blockSize).Bytes())
	d.Adopted, d.Formatting = true, false
	x.catalog.add(&d)
	x.Devices = append(x.Devices, describeAdopted(d))
}

// keepAway keeps a thin device of which nobody can say whose it is, or whether it
// should still be there.
func (x *adopting) keepAway(t thinDevice, of claim) {
	created := t.Created
	q := quarantined{
		ID: t.ID, Name: of.device.Name, Born: birth{t.TransactionID, &created},
		Mapped: t.Mapped.Sectors(x.blockSize).Bytes(), Why: of.away,
	}
	x.catalog.keepAway(q)
	x.Quarantined = append(x.Quarantined, Quarantined{q.ID, q.Name, q.Mapped, q.Why})
	switch {
	case of.deleted:
		x.decided(RuleDeleteKept)
		x.Deletions = append(x.Deletions, q.Name)
	case q.Name != "" && !of.kept:
		x.decided(RuleKeptAway)
		x.Lost = append(x.Lost, q.Name)
	default:
		x.decided(RuleKeptAway)
	}
}

// adoptionGap keeps ids free above those that are there: whatever an earlier owner
// had in flight is below.
const adoptionGap = 1 << 16

// A claim is a thin device on record.
type claim struct {
	device  device
	away    string // why it is kept away, if it is
	deleted bool   // its deletion had begun
	unheard bool   // its creation may never have happened
	kept    bool   // it was kept away before
}

func claimsOf(c *catalog) map[dm.DeviceID]claim {
	claims := map[dm.DeviceID]claim{}
	if c == nil {
		return claims
	}
	for _, d := range c.devices {
		claims[d.ID] = claim{device: *d}
	}
	for _, o := range c.open {
		of := claim{device: o.Device, deleted: o.Delete, unheard: !o.Delete}
		if o.Delete {
			of.away = "its deletion had begun"
		}
		claims[o.Device.ID] = of
	}
	for _, q := range c.quarantine {
		claims[q.ID] = claim{device: device{Name: q.Name, Born: q.Born}, away: q.Why, kept: true}
	}
	return claims
}

func describeAdopted(d device) Device {
	return Device{
		Name: d.Name, ID: d.ID, Size: d.Size, Parent: d.Parent, FS: d.FS,
		ReadOnly: d.ReadOnly, Adopted: true, Labels: d.Labels, TransactionID: d.Op,
	}
}
