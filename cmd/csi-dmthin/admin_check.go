package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A poolCheck is what is wrong with a pool.
type poolCheck struct {
	Pool     string    `json:"pool"`
	Findings []finding `json:"findings"`
}

// A finding is something on which pool, journal and kernel do not agree, or that keeps
// the pool from working.
type finding struct {
	Kind   string `json:"kind"`
	Object string `json:"object,omitempty"` // whom it is about, if not the pool
	Says   string `json:"says"`
	Do     string `json:"do"` // what can be done about it
	passes bool   // a change that is on its way looks the same
}

// Kinds of findings.
const (
	isNotOpen       = "not-open"
	isInMode        = "mode"
	needsCheck      = "needs-check"
	isReadOnly      = "read-only"
	isUnknown       = "unknown"
	isGhost         = "ghost"
	isOrphan        = "orphan"
	isQuarantined   = "quarantined"
	isOpenOperation = "open-operation"
	isSuspended     = "suspended"
	hasNoTable      = "no-table"
	hasInactive     = "inactive-table"
	differsInSize   = "table-size"
)

// A change on its way looks like one that stopped halfway, so what may be one counts only
// if it is there each time of so many, so long apart.
const (
	checkLooks = 5
	checkPause = 400 * time.Millisecond
)

// check looks whether pools are in order.
func (a *admin) check(ctx context.Context, pool string) ([]poolCheck, error) {
	pools, err := a.named(pool)
	if err != nil {
		return nil, err
	}
	m, err := a.open()
	if err != nil {
		return nil, err
	}
	checks := a.look(m, pools)
	for looks := 1; looks < checkLooks && slices.ContainsFunc(checks, poolCheck.mayPass); looks++ {
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), m.Close())
		case <-time.After(a.pause):
		}
		again := a.look(m, pools)
		for i, c := range checks {
			checks[i] = c.both(again[i])
		}
	}
	return checks, m.Close()
}

func (c poolCheck) mayPass() bool {
	return slices.ContainsFunc(c.Findings, func(f finding) bool { return f.passes })
}

// both returns what a later look found, without what may pass and was not there before.
func (c poolCheck) both(later poolCheck) poolCheck {
	later.Findings = slices.DeleteFunc(later.Findings, func(f finding) bool {
		return f.passes && !slices.ContainsFunc(c.Findings, func(before finding) bool { return before.Kind == f.Kind && before.Object == f.Object })
	})
	return later
}

func (a *admin) look(k dm.Kernel, pools []*csi.Pool) []poolCheck {
	return eachPool(pools,
		func(p *csi.Pool) poolCheck { return poolCheck{p.Name, findingsOf(k, p)} },
		func(p *csi.Pool) poolCheck { return poolCheck{p.Name, []finding{notOpen(p, hangs)}} })
}

func notOpen(p *csi.Pool, problem string) finding {
	return finding{Kind: isNotOpen, Says: problem, Do: "mend what it names, and the agent opens the pool by itself; docs/repair.md tells what its words mean"}
}

func findingsOf(k dm.Kernel, p *csi.Pool) []finding {
	layers, err := p.Now()
	if errors.As(err, new(*csi.EmptyPool)) {
		return []finding{}
	}
	if err != nil {
		return []finding{notOpen(p, err.Error())}
	}
	all := ofStatus(p.Name, layers.DeviceSet.Status())
	kernels, err := ofKernel(k, layers)
	if err != nil {
		all = append(all, finding{Kind: isUnknown, Says: "device-mapper could not be asked: " + err.Error(), Do: "check again"})
	}
	return append(all, kernels...)
}

// ofStatus returns what the pool itself says is wrong.
func ofStatus(pool string, st *deviceset.Status) []finding {
	all := []finding{}
	add := func(kind, object, do, says string, args ...any) {
		all = append(all, finding{kind, object, fmt.Sprintf(says, args...), do, kind == isOpenOperation})
	}
	if st.Mode != "rw" {
		add(isInMode, "", waysOut[st.Mode], "its mode is %s", st.Mode)
	}
	if st.NeedsCheck {
		add(needsCheck, "", `"A pool needs a check" in docs/repair.md`, "a write of its metadata failed, and it takes no changes before it was checked")
	}
	if st.ReadOnly != "" {
		add(isReadOnly, "", "`csi-dmthin adopt "+pool+"` shows what adopting it would do; docs/repair.md tells when not to", "%s", st.ReadOnly)
	}
	for _, name := range st.Ghosts {
		add(isGhost, name, "delete it by its name", "it is on record, and the pool has lost it")
	}
	for _, id := range st.Orphans {
		add(isOrphan, thinName(id), fmt.Sprintf("`csi-dmthin adopt %s --device %d --name NAME`, and use or delete it by that name", pool, id), "nobody here has made it")
	}
	for _, id := range st.Quarantined {
		add(isQuarantined, thinName(id), `"Quarantine, orphans, ghosts" in docs/repair.md`, "it is not what its record says, or has none since the pool was adopted")
	}
	if st.OpenOperations > 0 {
		add(isOpenOperation, "", "the pool answers again, or the agent is started anew", "creations of which nobody knows whether they happened: %d", st.OpenOperations)
	}
	return all
}

var waysOut = map[string]string{
	"out_of_data_space": `"Data is full" in docs/repair.md: delete, or ` + "`csi-dmthin pool grow`",
	"ro":                `"A pool needs a check" or "Metadata is full" in docs/repair.md`,
	"Fail":              `"A pool failed" in docs/repair.md`,
	"Error":             `"A pool failed" in docs/repair.md`,
	"unavailable":       `"A pool failed" in docs/repair.md`,
}

func thinName(id dm.DeviceID) string { return fmt.Sprintf("thin device %d", id) }

// ofKernel returns what is wrong with the pool's devices that are active.
func ofKernel(k dm.Kernel, layers *graphdriver.Driver) (all []finding, err error) {
	prefix := deviceset.UUIDPrefix + layers.PoolUUID() + "-"
	listed, err := dm.List(k, "", prefix)
	if err != nil {
		return nil, err
	}
	records := map[string]deviceset.Device{}
	for _, d := range allDevices(layers) {
		records[strconv.FormatUint(uint64(d.ID), 10)] = d
	}
	for _, l := range listed {
		record, ok := records[strings.TrimPrefix(l.UUID, prefix)]
		found, e := ofDevice(dm.ByUUID(k, l.UUID), record, ok)
		if e != nil && !errors.Is(e, unix.ENXIO) { // ENXIO: it has gone meanwhile
			err = errors.Join(err, e)
		}
		all = append(all, found...)
	}
	return all, err
}

func ofDevice(d dm.Device, record deviceset.Device, recorded bool) (all []finding, err error) {
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	object := info.Name
	if recorded {
		object += " (" + record.Name + ")"
	}
	add := func(kind, do, says string, args ...any) {
		all = append(all, finding{kind, object, fmt.Sprintf(says, args...), do, true})
	}
	if info.Suspended() {
		add(isSuspended, `"A device hangs" in docs/repair.md, or start the agent anew`, "it is suspended: whoever uses it waits")
	}
	if info.Inactive() {
		add(hasInactive, "start the agent anew, or `dmsetup clear "+info.Name+"`", "a table waits, which the next resume would put in place")
	}
	if !info.Active() {
		add(hasNoTable, "start the agent anew, or `dmsetup remove "+info.Name+"`", "it has no table")
		return all, nil
	}
	if !recorded {
		return all, nil
	}
	table, err := d.Table()
	if err == nil && table.Length() != dm.SectorsIn(record.Size) {
		add(differsInSize, "expand the volume again, or start the agent anew",
			"its table has %d bytes, and its record %d", table.Length().Bytes(), record.Size)
	}
	return all, err
}
