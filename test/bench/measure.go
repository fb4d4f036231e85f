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

func (t times) quantile(q float64) time.Duration { return t[int(q*float64(len(t)-1))] }

// cells prints the times as two columns.
func (t times) cells() string {
	if t == nil {
		return "-\t-"
	}
	return micros(t.quantile(.5)) + "\t" + micros(t.quantile(.99))
}

// measure returns the row of an operation.
func measure(r *rig, op operation, ours, execs int) (row string, err error) {
	if strings.HasPrefix(op.name, "fork") {
		ours = execs
	}
	var serial, at16, dmSerial, dm16 times
	before, err := r.flushes()
	if err != nil {
		return "", err
	}
	if serial, err = repeat(op, ours, 1, op.do); err != nil {
		return "", err
	}
	flushes, err := r.perCall(op, before, ours)
	if err != nil {
		return "", err
	}
	if !op.serial {
		if at16, err = repeat(op, ours, parallel, op.do); err != nil {
			return "", err
		}
	}
	ratio := "-"
	if op.dmsetup != nil {
		if dmSerial, err = repeat(op, execs, 1, op.exec); err != nil {
			return "", err
		}
		if !op.serial {
			if dm16, err = repeat(op, execs, parallel, op.exec); err != nil {
				return "", err
			}
		}
		ratio = fmt.Sprintf("%.0f", float64(dmSerial.quantile(.5))/float64(serial.quantile(.5)))
	}
	return fmt.Sprintf("%s\t%s\t\t%s\t%s\t\t%s\t\t%s\t%s\t",
		op.name, serial.cells(), at16.cells(), flushes, dmSerial.cells(), dm16.cells(), ratio), nil
}

// perCall returns how many flushes of the disks one call made. Where the steps
// around it flush too, nobody can tell them apart.
func (r *rig) perCall(op operation, before, calls int) (string, error) {
	after, err := r.flushes()
	if op.prepare != nil || op.undo != nil {
		return r.once(op)
	}
	return fmt.Sprintf("%.1f", float64(after-before)/float64(calls)), err
}

// once counts the flushes of a single call.
func (r *rig) once(op operation) (string, error) {
	if err := call(op.prepare, 1); err != nil {
		return "", err
	}
	before, err := r.flushes()
	if err != nil {
		return "", err
	}
	if err := op.do(1); err != nil {
		return "", err
	}
	after, err := r.flushes()
	if err != nil {
		return "", err
	}
	return fmt.Sprint(after - before), call(op.undo, 1)
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
