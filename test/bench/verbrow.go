package main

import (
	"cmp"
	"fmt"
)

func (b bench) measureVerbs(verbs []verb, flushes func() (int, error)) (rows []verbRow, err error) {
	for _, v := range verbs {
		if !b.wants(v.name) {
			continue
		}
		row := verbRow{verb: v}
		if err := row.measure(b, flushes); err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// A verbRow is all that is known of a verb.
type verbRow struct {
	verb
	flushes            int
	serial, at16, many measurement
}

// A measurement is what calls took, and what was noted meanwhile.
type measurement struct {
	calls times
	parts []times
}

func (row *verbRow) measure(b bench, flushes func() (int, error)) (err error) {
	err = row.during(func() error {
		row.flushes, err = flushesOf(row.operation, flushes)
		return err
	})
	for _, p := range row.parts {
		p.take()
	}
	if err != nil {
		return err
	}
	if row.serial, err = row.run(b, 1); err != nil || row.operation.serial {
		return err
	}
	row.at16, err = row.run(b, parallel)
	return err
}

// crowded measures it again, where there are many devices now.
func (row *verbRow) crowded(b bench) (err error) {
	row.many, err = row.run(b, 1)
	return err
}

func (row *verbRow) run(b bench, workers int) (m measurement, err error) {
	err = row.during(func() error {
		m.calls, err = repeat(row.operation, cmp.Or(row.times, b.times), workers, row.do)
		return err
	})
	for _, p := range row.parts {
		m.parts = append(m.parts, p.take())
	}
	return m, err
}

func (row *verbRow) during(run func() error) error {
	if row.while == nil {
		return run()
	}
	return row.while(run)
}

// String prints the row, and one for each of its parts.
func (row verbRow) String() string {
	text := fmt.Sprintf("%s\t%s\t\t%s\t%d\t\t%s\t\n", row.name, row.serial.calls.cells(), row.at16.calls.cells(), row.flushes, row.many.calls.cells())
	for i, p := range row.parts {
		text += fmt.Sprintf("%s\t%s\t\t%s\t\t\t%s\t\n", p.name, row.serial.part(i), row.at16.part(i), row.many.part(i))
	}
	return text
}

func (m measurement) part(i int) string {
	if m.parts == nil {
		return times(nil).cells()
	}
	return m.parts[i].cells()
}
