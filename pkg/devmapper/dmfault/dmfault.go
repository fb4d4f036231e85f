// Package dmfault breaks a kernel on purpose. A Plan lets the n-th request fail
// in one of four ways; told with every n and every way, a story meets every fault
// once.
//
// It knows nothing of what the requests mean.
package dmfault

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A Mode is a way to fail.
type Mode int

// The ways to fail.
const (
	ErrorBefore Mode = iota // the request does nothing and answers EIO
	ErrorAfter              // the request is carried out, and heard as EIO
	CrashBefore             // the process dies before the request
	CrashAfter              // the process dies when the request has been carried out
	NumModes    = iota
)

var modeNames = [NumModes]string{"error before", "error after", "crash before", "crash after"}

// String names m.
func (m Mode) String() string { return modeNames[m] }

// ErrCrashed is what a process hears after its death: whatever it asks, nothing
// happens any more. A harness takes it for the end, and starts anew on a kernel
// without the plan.
var ErrCrashed = errors.New("the process is dead")

// A Plan says which request fails, and how. It is used once.
type Plan struct {
	At   int // counted from 0, over all that use the plan
	Mode Mode

	mu      sync.Mutex
	next    int
	hit     string
	crashed bool
}

// Hit returns what the plan made fail, or nothing if it has not come to that.
func (p *Plan) Hit() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

// Crashed reports whether the process is dead.
func (p *Plan) Crashed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crashed
}

// Do carries out a step by the plan: as it is, not at all, or with another end.
// What is a step, the caller decides: a request, a write, a sync.
func (p *Plan) Do(what string, step func() error) error {
	mode, mine, dead := p.turn(what)
	switch {
	case dead, mine && mode == CrashBefore:
		return ErrCrashed
	case !mine:
		return step()
	case mode == ErrorBefore:
		return unix.EIO
	}
	_ = step() // however it ends, the caller hears something else
	if mode == CrashAfter {
		return ErrCrashed
	}
	return unix.EIO
}

// turn counts a step. A crash counts from the moment it is decided: steps that
// come later, from other goroutines, find the process dead.
func (p *Plan) turn(what string) (mode Mode, mine, dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crashed {
		return p.Mode, false, true
	}
	mine = p.next == p.At
	p.next++
	if mine {
		p.hit = what
		p.crashed = p.Mode == CrashBefore || p.Mode == CrashAfter
	}
	return p.Mode, mine, false
}

// Wrap returns k as the plan makes it.
func Wrap(k dm.Kernel, p *Plan) dm.Kernel { return &faulty{k, p} }

type faulty struct {
	kernel dm.Kernel
	plan   *Plan
}

func (f *faulty) Do(r dm.Request) (reply dm.Reply, err error) {
	err = f.plan.Do(r.String(), func() (err error) {
		reply, err = f.kernel.Do(r)
		return err
	})
	if err != nil {
		return dm.Reply{}, err
	}
	return reply, nil
}
