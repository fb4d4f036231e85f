package main

import (
	"errors"
	"fmt"
	"time"
)

// sets measures the DeviceSet: its verbs with few devices and with many, then what
// a create is counted to take, and how it starts.
func (b bench) sets() error {
	var f findings
	rows, err := b.setWithFiles(&f)
	if err != nil {
		return err
	}
	more, err := b.setWithMuch()
	if err != nil {
		return err
	}
	if rows = append(rows, more...); len(rows) > 0 {
		fmt.Println()
		w := newTable(fmt.Sprintf("device set\tp50\tp99\t16 at once\tp50\tp99\tflushes\twith %d devices\tp50\tp99\t", b.devices))
		for _, row := range rows {
			fmt.Fprint(w, row)
		}
		_ = w.Flush() // to standard output, like everything here
	}
	if err := b.rpcs(&f); err != nil {
		return err
	}
	return f.print()
}

// setWithFiles measures a set whose devices have file systems.
func (b bench) setWithFiles(f *findings) (rows []verbRow, err error) {
	r, err := newSetRig(false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if b.wants(countTitle) {
		if err := r.count(f); err != nil {
			return nil, err
		}
	}
	o, err := newOrigins(r)
	if err != nil {
		return nil, err
	}
	rows, err = b.measureVerbs(r.verbs(o), r.flushes)
	if err != nil || len(rows) == 0 && !b.wants(startTitle) {
		return rows, err
	}
	begin := time.Now()
	if err := r.crowd(b.devices); err != nil {
		return nil, err
	}
	f.tell("%d devices made, 16 at once: %.1f s", b.devices, time.Since(begin).Seconds())
	for i := range rows {
		if err := rows[i].crowded(b); err != nil {
			return nil, err
		}
	}
	if b.wants(startTitle) {
		err = r.start(o, f)
	}
	return rows, err
}

// setWithMuch measures deletes of what is large.
func (b bench) setWithMuch() (rows []verbRow, err error) {
	r, err := newSetRig(true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	n, err := newNeighbour(r)
	if err != nil {
		return nil, err
	}
	return b.measureVerbs(r.deletes(n), r.flushes)
}
