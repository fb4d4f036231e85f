package deviceset

import (
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// adopted decides what becomes of each device: it asks nobody.
func adopted(r poolRecord, record *catalog, pool []thinDevice, blockSize dm.Sectors, decided func(Rule)) (*catalog, *Adoption) {
	c, a := newCatalog(r), &Adoption{}
	claims := claimsOf(record)
	if record != nil {
		c.Op = record.Op
	}
	highest := c.Cursor
	for _, t := range pool {
		highest = max(highest, t.ID)
		claim, ok := claims[t.ID]
		delete(claims, t.ID)
		if !ok || claim.deleted || !claim.device.Born.matches(t.TransactionID, t.Created) {
			if claim.deleted {
				decided(RuleDeleteKept)
			} else {
				decided(RuleKeptAway)
			}
			q := quarantine(t, claim, ok, blockSize)
			c.keepAway(q)
			a.Quarantined = append(a.Quarantined, Quarantined{q.ID, q.Name, q.Mapped, q.Why})
			if claim.deleted {
				a.Deletions = append(a.Deletions, q.Name)
			} else if ok {
				a.Lost = append(a.Lost, q.Name)
			}
			continue
		}
		decided(RuleAdopted)
		d := claim.device
		created := t.Created
		d.Born.Time = &created
		d.Size = max(d.Size, t.extent.Sectors(blockSize).Bytes())
		d.Adopted, d.Formatting = true, false
		c.add(&d)
		a.Devices = append(a.Devices, describeAdopted(d))
	}
	for _, claim := range claims {
		if !claim.deleted && !claim.unheard {
			a.Lost = append(a.Lost, claim.device.Name)
		}
	}
	slices.Sort(a.Lost)
	slices.SortFunc(a.Devices, func(a, b Device) int { return int(a.ID) - int(b.ID) })
	c.Cursor = (highest + adoptionGap) & dm.MaxDeviceID
	return c, a
}

// adoptionGap keeps ids free above those that are there: whatever an earlier owner
// had in flight is below.
const adoptionGap = 1 << 16

// A claim is a thin device on record.
type claim struct {
	device  device
	deleted bool // its deletion had begun
	unheard bool // its creation may never have happened
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
		claims[o.Device.ID] = claim{device: o.Device, deleted: o.Delete, unheard: !o.Delete}
	}
	return claims
}

func quarantine(t thinDevice, of claim, known bool, blockSize dm.Sectors) quarantined {
	created := t.Created
	q := quarantined{
		ID: t.ID, Born: birth{t.TransactionID, &created}, Mapped: t.Mapped.Sectors(blockSize).Bytes(),
		Why: "no record of it",
	}
	if known {
		q.Name, q.Why = of.device.Name, "its birth is not the one on record"
	}
	if of.deleted {
		q.Why = "its deletion had begun"
	}
	return q
}

func describeAdopted(d device) Device {
	return Device{
		Name: d.Name, ID: d.ID, Size: d.Size, Parent: d.Parent, FS: d.FS,
		ReadOnly: d.ReadOnly, Adopted: true, Labels: d.Labels, TransactionID: d.Op,
	}
}
