package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// tallies are all counts at one time.
type tallies struct {
	probes, messages, statuses, others, label, labelSyncs, journal, fdatasyncs, flushes, forks int
}

func (r *setRig) tally() (t tallies, err error) {
	m := r.machine
	t = tallies{
		probes: int(m.probes.Load()), messages: int(m.messages.Load()),
		statuses: int(m.statuses.Load()), others: int(m.others.Load()),
		label: int(m.label.writes.Load()), labelSyncs: int(m.label.syncs.Load()),
		journal: int(m.journal.writes.Load()), fdatasyncs: int(m.journal.syncs.Load()),
	}
	if t.flushes, err = r.flushes(); err == nil {
		t.forks, err = forks()
	}
	return t, err
}

// forks counts the processes and threads that the kernel has made since it booted
// (Documentation/filesystems/proc.rst: /proc/stat).
func forks() (n int, err error) {
	stat, err := os.ReadFile("/proc/stat")
	for _, line := range strings.Split(string(stat), "\n") {
		if rest, ok := strings.CutPrefix(line, "processes "); ok && err == nil {
			_, err = fmt.Sscan(rest, &n)
		}
	}
	return n, err
}

// A fact is a count with its limit, of all calls together.
type fact struct {
	name        string
	have, limit int
	exact       bool // fewer is wrong too
}

func (f fact) broken() bool { return f.have > f.limit || f.exact && f.have != f.limit }

// factsOf tells what n creates between two tallies are allowed to have taken. What
// goes together in one frame of the journal is fewer when several run at once.
func factsOf(a, b tallies, n int, together bool) []fact {
	return []fact{
		{"probes", b.probes - a.probes, n, true},
		{"messages", b.messages - a.messages, n, true},
		{"statuses", b.statuses - a.statuses, n, true},
		{"other requests", b.others - a.others, 0, true},
		{"label writes", b.label - a.label, n, !together},
		{"label flushes", b.labelSyncs - a.labelSyncs, 0, true},
		{"device flushes", b.flushes - a.flushes, 3 * n, !together},
		{"journal writes", b.journal - a.journal, n, !together},
		{"fdatasyncs", b.fdatasyncs - a.fdatasyncs, n, !together},
		{"forks", b.forks - a.forks, n / 10, false}, // the kernel counts its own threads and those of Go
	}
}

const (
	countTitle   = "counted per create"
	countedTimes = 200
)

// count counts what creates take.
func (r *setRig) count(f *findings) error {
	alone, err := r.countCreates(countedTimes, 1)
	if err != nil {
		return err
	}
	together, err := r.countCreates(countedTimes, parallel)
	if err != nil {
		return err
	}
	f.add(countTitle, alone, countedTimes)
	f.add(countTitle+", 16 at once", together, countedTimes)
	return nil
}

// countCreates counts what n creates take, one after the other or 16 at once.
func (r *setRig) countCreates(n, workers int) ([]fact, error) {
	create := func(i int) error { return r.blank(fmt.Sprintf("counted-%d-%d", workers, i), volumeSize) }
	// Those before give the pool's status its first age and Go its threads.
	if _, err := inParallel(2*parallel, parallel, func(i int) error { return create(n + i) }); err != nil {
		return nil, err
	}
	time.Sleep(100 * time.Millisecond) // the set looks at the pool once after it was opened
	before, err := r.tally()
	if err != nil {
		return nil, err
	}
	if _, err := inParallel(n, workers, create); err != nil {
		return nil, err
	}
	after, err := r.tally()
	if err != nil {
		return nil, err
	}
	_, err = inParallel(n+2*parallel, parallel, func(i int) error {
		return r.remove(fmt.Sprintf("counted-%d-%d", workers, i))
	})
	return factsOf(before, after, n, workers > 1), err
}

// add tells counts by call, and which are beyond their limits.
func (f *findings) add(title string, facts []fact, n int) {
	var words []string
	for _, fact := range facts {
		words = append(words, fmt.Sprintf("%s %s", fact.name, by(fact.have, n)))
		if fact.broken() {
			f.breaks("%s: %s: %d in %d calls, want %d", title, fact.name, fact.have, n, fact.limit)
		}
	}
	f.tell("%s: %s", title, strings.Join(words, ", "))
}

// by prints a count by call, in full where it does not come out even.
func by(have, n int) string {
	if have%n == 0 {
		return fmt.Sprint(have / n)
	}
	return fmt.Sprintf("%.3f", float64(have)/float64(n))
}
