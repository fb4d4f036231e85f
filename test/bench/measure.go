package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

const parallel = 16

// times are what one operation took, each time.
type times []time.Duration

func sortTimes(t times) { slices.Sort(t) }

func (t times) quantile(q float64) time.Duration { return t[int(q*float64(len(t)-1)+.5)] }

// cells prints the times as two columns.
func (t times) cells() string {
	if t == nil {
		return "-\t-"
	}
	return micros(t.quantile(.5)) + "\t" + micros(t.quantile(.99))
}

// A row is all that is known of an operation on the kernel.
type row struct {
	operation
	ours, dmsetup struct{ serial, at16 times }
	flushes       int // of one call
}

// measure fills the row of an operation; one that starts processes is repeated
// less often.
func measure(r *rig, op operation, ours, execs int) (m row, err error) {
	m.operation = op
	if op.process {
		ours = execs
	}
	if m.flushes, err = flushesOf(op, r.flushes); err != nil {
		return m, err
	}
	if m.ours.serial, m.ours.at16, err = both(op, ours, op.do); err != nil {
		return m, err
	}
	if op.dmsetup != nil {
		m.dmsetup.serial, m.dmsetup.at16, err = both(op, execs, op.exec)
	}
	return m, err
}

// String prints the row with tabs between its columns.
func (m row) String() string {
	ratio := "-"
	if m.dmsetup.serial != nil {
		ratio = fmt.Sprintf("%.0f", float64(m.dmsetup.serial.quantile(.5))/float64(m.ours.serial.quantile(.5)))
	}
	return fmt.Sprintf("%s\t%s\t\t%s\t%d\t\t%s\t\t%s\t%s\t", m.name, m.ours.serial.cells(), m.ours.at16.cells(),
		m.flushes, m.dmsetup.serial.cells(), m.dmsetup.at16.cells(), ratio)
}

// flushesOf counts the flushes of a single call.
func flushesOf(op operation, flushes func() (int, error)) (int, error) {
	if err := call(op.prepare, 1); err != nil {
		return 0, err
	}
	before, err := flushes()
	if err != nil {
		return 0, err
	}
	if err := op.do(1); err != nil {
		return 0, err
	}
	after, err := flushes()
	if err != nil {
		return 0, err
	}
	return after - before, call(op.undo, 1)
}

// both times n calls one after the other and, if that makes sense, 16 at once.
func both(op operation, n int, do func(i int) error) (serial, at16 times, err error) {
	if serial, err = repeat(op, n, 1, do); err != nil || op.serial {
		return serial, nil, err
	}
	at16, err = repeat(op, n, parallel, do)
	return serial, at16, err
}

// exec does the operation through dmsetup.
func (op operation) exec(i int) error {
	for _, args := range op.dmsetup(i) {
		if out, err := exec.Command("dmsetup", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("dmsetup %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// repeat times n calls by a number of workers, and returns the times sorted.
// What comes before and after the calls is not timed; an operation that is serial
// needs it around each of them.
func repeat(op operation, n, workers int, do func(i int) error) (times, error) {
	if op.serial {
		return oneByOne(op, n, do)
	}
	for i := range n {
		if err := call(op.prepare, i+1); err != nil {
			return nil, err
		}
	}
	all, err := inParallel(n, workers, do)
	for i := range n {
		if undoErr := call(op.undo, i+1); err == nil {
			err = undoErr
		}
	}
	slices.Sort(all)
	return all, err
}

func oneByOne(op operation, n int, do func(i int) error) (times, error) {
	all := make(times, n)
	for i := range n {
		if err := call(op.prepare, i+1); err != nil {
			return nil, err
		}
		begin := time.Now()
		err := do(i + 1)
		all[i] = time.Since(begin)
		if undoErr := call(op.undo, i+1); err == nil {
			err = undoErr
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

func inParallel(n, workers int, do func(i int) error) (times, error) {
	all, errs := make(times, n), make([]error, n)
	var wait sync.WaitGroup
	for worker := range workers {
		wait.Go(func() {
			for i := worker; i < n; i += workers {
				begin := time.Now()
				errs[i] = do(i + 1)
				all[i] = time.Since(begin)
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func call(step func(int) error, i int) error {
	if step == nil {
		return nil
	}
	return step(i)
}
