// Package daemon runs programs beside this one, and ends them again.
//
// It knows when one has ended by itself, and what it said last. It knows nothing of the
// children that one may have.
package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Patience is how long a daemon may take to begin, to answer, or to end.
const Patience = 2 * time.Minute

// A Process is a program beside this one. What it says goes to a file.
type Process struct {
	cmd   *exec.Cmd
	log   string         // the file
	end   syscall.Signal // asks it to end
	ended chan struct{}
	err   error // how it has ended

	stopped bool
}

// Start starts a command, which says what it has to say to the file log, and ends when
// it gets the signal end.
func Start(cmd *exec.Cmd, log string, end syscall.Signal) (*Process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, log: log, end: end, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// String is the name of its program.
func (p *Process) String() string { return filepath.Base(p.cmd.Path) }

// Pid is its number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Until waits until the process has done something, which what names in errors.
func (p *Process) Until(what string, done func() (bool, error)) error {
	for limit := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := p.IsThere(); err != nil {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s has not %s in %v", p, what, Patience)
		}
	}
}

// IsThere fails if the process has ended.
func (p *Process) IsThere() error {
	select {
	case <-p.ended:
		return errors.Join(fmt.Errorf("%s has ended by itself", p), p.err)
	default:
		return nil
	}
}

// Ended is closed when the process has ended, for whatever reason.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Stop asks the process to end, and fails if it does so badly or had done so before.
// One that does not end is killed, for it stands in the way of all that is taken
// down after it. Again does nothing.
func (p *Process) Stop() error {
	if p.stopped {
		return nil
	}
	p.stopped = true
	if err := p.IsThere(); err != nil {
		return err
	}
	err := p.End(p.end)
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil && p.err != nil &&
		(!status.Signaled() || status.Signal() != p.end) { // of which it need not take notice
		err = fmt.Errorf("%s: %w", p, p.err)
	}
	return err
}

// End ends a process that may have ended already, and does not mind how: with a signal,
// and if that does not help, by killing it, which is an error.
func (p *Process) End(with syscall.Signal) error {
	p.stopped = true
	_ = p.cmd.Process.Signal(with) // it may have ended
	select {
	case <-p.ended:
		return nil
	case <-time.After(Patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s had to be killed %v after it was asked to end", p, Patience)
	}
}

// Said tells whether the process has said something.
func (p *Process) Said(text string) bool {
	log, _ := os.ReadFile(p.log)
	return strings.Contains(string(log), text)
}

// LastWords returns the last lines that the process said.
func (p *Process) LastWords(most int) string {
	log, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	lines = lines[max(0, len(lines)-most):]
	return fmt.Sprintf("\n%s said last:\n    %s\n", p, strings.Join(lines, "\n    "))
}
