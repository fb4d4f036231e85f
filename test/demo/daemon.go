package main

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

// A daemon is a process beside this one. What it says goes to a file.
type daemon struct {
	cmd   *exec.Cmd
	log   string         // the file
	end   syscall.Signal // asks it to end
	ended chan struct{}
	err   error // how it has ended

	stopped bool
}

func startDaemon(cmd *exec.Cmd, log string, end syscall.Signal) (*daemon, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &daemon{cmd: cmd, log: log, end: end, ended: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.ended)
	}()
	return d, nil
}

// String is the name of its program.
func (d *daemon) String() string { return filepath.Base(d.cmd.Path) }

// patience is how long a daemon may take to begin, to answer, or to end.
const patience = 2 * time.Minute

// until waits until a daemon has done something.
func (d *daemon) until(what string, done func() (bool, error)) error {
	for limit := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := d.isThere(); err != nil {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s has not %s in %v", d, what, patience)
		}
	}
}

// isThere fails if the daemon has ended.
func (d *daemon) isThere() error {
	select {
	case <-d.ended:
		return errors.Join(fmt.Errorf("%s has ended by itself", d), d.err)
	default:
		return nil
	}
}

// stop asks the daemon to end, and fails if it does so badly or had done so before.
// One that does not end is killed, for it stands in the way of all that is taken
// down after it. Again does nothing.
func (d *daemon) stop() error {
	if d.stopped {
		return nil
	}
	d.stopped = true
	if err := d.isThere(); err != nil {
		return err
	}
	_ = d.cmd.Process.Signal(d.end)
	select {
	case <-d.ended:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.ended
		return fmt.Errorf("%s had to be killed %v after it was asked to end", d, patience)
	}
	if status := d.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() && status.Signal() == d.end {
		return nil // it did not mind
	}
	if d.err != nil {
		return fmt.Errorf("%s: %w", d, d.err)
	}
	return nil
}

// said tells whether the daemon has said something.
func (d *daemon) said(text string) bool {
	log, _ := os.ReadFile(d.log)
	return strings.Contains(string(log), text)
}

// lastWords returns the last lines that the daemon said.
func (d *daemon) lastWords(most int) string {
	log, _ := os.ReadFile(d.log)
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	lines = lines[max(0, len(lines)-most):]
	return fmt.Sprintf("\n%s said last:\n    %s\n", d, strings.Join(lines, "\n    "))
}
