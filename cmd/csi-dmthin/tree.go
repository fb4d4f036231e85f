package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// A tree is a pool, a device, or a name of one that is gone, with what was made from it.
type tree struct {
	device *listedDevice // nil, if there is none
	name   string
	below  []*tree
}

// trees returns the lineage of devices, a tree for each pool.
func trees(devices []listedDevice) (pools []*tree) {
	type key struct{ pool, device string }
	nodes, gone, roots := map[key]*tree{}, map[key]*tree{}, map[string]*tree{}
	for i, d := range devices {
		nodes[key{d.Pool, d.Device}] = &tree{device: &devices[i], name: d.Name}
	}
	for _, d := range devices {
		pool := roots[d.Pool]
		if pool == nil {
			pool = &tree{name: "pool " + d.Pool}
			roots[d.Pool], pools = pool, append(pools, pool)
		}
		above, source := pool, key{d.Pool, d.Source}
		switch {
		case d.SourceGone && gone[source] == nil:
			above = &tree{name: d.Source + " (gone)"}
			gone[source], pool.below = above, append(pool.below, above)
		case d.SourceGone:
			above = gone[source]
		case d.Source != "" && nodes[source] != nil:
			above = nodes[source]
		}
		above.below = append(above.below, nodes[key{d.Pool, d.Device}])
	}
	return pools
}

// printTree draws what was made from what.
func printTree(w io.Writer, devices []listedDevice) error {
	rows := [][]string{{"NAME", "KIND", "SIZE", "USED", "EXCLUSIVE", "FS", "CREATED", "DEVICE"}}
	for _, pool := range trees(devices) {
		rows = append(rows, pool.row(pool.name))
		rows = append(rows, pool.rows("")...)
	}
	if err := printTable(w, rows...); err != nil {
		return err
	}
	return printProblems(w, devices)
}

// rows draws what is below t, each line behind an indent.
func (t *tree) rows(indent string) (rows [][]string) {
	slices.SortStableFunc(t.below, func(a, b *tree) int { return cmp.Compare(a.name, b.name) })
	for i, b := range t.below {
		branch, further := "├─ ", "│  "
		if i == len(t.below)-1 {
			branch, further = "└─ ", "   "
		}
		rows = append(rows, b.row(indent+branch+b.name))
		rows = append(rows, b.rows(indent+further)...)
	}
	return rows
}

func (t *tree) row(drawn string) []string {
	if t.device == nil {
		return []string{drawn}
	}
	d := *t.device
	return []string{
		drawn, d.Kind, humanSize(d.Size), optionalSize(d.Used), optionalSize(d.Exclusive), d.fsText(),
		d.Created.Format(time.RFC3339), d.Device,
	}
}

// String draws the tree without figures.
func (t *tree) String() string {
	text := t.name + "\n"
	for _, row := range t.rows("") {
		text += fmt.Sprintln(row[0])
	}
	return text
}
