package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A guest is a kernel that runs as a process of this machine. What its command
// says comes out of pipes, what the kernel itself says goes to a file.
type guest struct {
	dir     string // private to this boot
	console *console
	answer  answer
	inlets  []*os.File // the guest's ends of its pipes
	copies  sync.WaitGroup
}

// inlets is the number of pipes: stdout, stderr and the answer.
const inlets = 3

// powerOffTime is how long a kernel may take to go when its command has ended.
// A test that leaves a device suspended, with data to be written, takes it all.
const powerOffTime = 10 * time.Second

// newGuest prepares a boot. The folder is not below $TMPDIR, which may be a
// place that the guest hides, as /dev/shm is.
func newGuest(c *Config) (g *guest, err error) {
	g = &guest{}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.dir, err = os.MkdirTemp("/var/tmp", "box-"); err != nil {
		return nil, err
	}
	if g.console, err = newConsole(c.Out); err != nil {
		return nil, err
	}
	for _, w := range [inlets]io.Writer{os.Stdout, os.Stderr, &g.answer} {
		if err := g.pipeTo(w); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// pipeTo makes one more inlet, whose data are copied to w.
func (g *guest) pipeTo(w io.Writer) error {
	r, inlet, err := os.Pipe()
	if err != nil {
		return err
	}
	g.inlets = append(g.inlets, inlet)
	g.copies.Go(func() {
		defer r.Close()
		io.Copy(w, r)
		io.Copy(io.Discard, r) // nobody reads any more, but the command goes on
	})
	return nil
}

// close may be called twice.
func (g *guest) close() {
	for _, inlet := range g.inlets {
		inlet.Close()
	}
	g.copies.Wait()
	os.RemoveAll(g.dir)
}

// run boots the kernel by cmd, to which the inlets are descriptors 3, 4 and 5,
// and returns the status of the guest's command when the kernel is gone.
func (g *guest) run(ctx context.Context, cmd *exec.Cmd) (int, error) {
	cmd.ExtraFiles = g.inlets
	cmd.Stdout, cmd.Stderr = g.console.file, g.console.file
	if err := startCaged(cmd); err != nil {
		g.console.remove()
		return 0, err
	}
	kill := func() { cmd.Process.Kill() }
	defer context.AfterFunc(ctx, kill)()
	g.answer.then(func() { time.AfterFunc(powerOffTime, kill) })

	cmd.Wait() // for its end, not for its status
	g.close()
	return g.verdict(ctx)
}

// verdict says how the boot ended, once the kernel is gone.
func (g *guest) verdict(ctx context.Context) (int, error) {
	status, answered := g.answer.status()
	switch {
	case !answered && ctx.Err() != nil:
		return 0, fmt.Errorf("%w (console: %s)", context.Cause(ctx), g.console.path())
	case !answered:
		return 0, fmt.Errorf("%s (console: %s)", g.console.lastWords(), g.console.path())
	}
	if trouble := g.console.trouble(); trouble != "" {
		fmt.Fprintf(os.Stderr, "box: warning: the kernel said: %s (console: %s)\n", trouble, g.console.path())
		return status, nil
	}
	return status, g.console.remove()
}

// An answer takes the line in which pid 1 tells its command's status.
type answer struct {
	mu     sync.Mutex
	line   strings.Builder
	action func()
}

// then makes action follow the answer.
func (a *answer) then(action func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.action = action
}

func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line.Write(p)
	if strings.HasSuffix(a.line.String(), "\n") && a.action != nil {
		a.action()
	}
	return len(p), nil
}

func (a *answer) status() (status int, answered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	status, err := strconv.Atoi(strings.TrimSuffix(a.line.String(), "\n"))
	return status, err == nil
}
