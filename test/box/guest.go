package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// A guest is a kernel that runs as a process of this machine. What its command
// says comes out of pipes, what the kernel itself says goes to a file.
type guest struct {
	*privateDir
	console *console
}

// newGuest prepares a boot.
func newGuest(c *Config) (*guest, error) {
	dir, err := newPrivateDir()
	if err != nil {
		return nil, err
	}
	console, err := newConsole(c.Out)
	if err != nil {
		dir.close()
		return nil, err
	}
	return &guest{dir, console}, nil
}

func (g *guest) close() {
	g.console.close()
	g.privateDir.close()
}

// writeJob leaves the job where the guest finds it.
func (g *guest) writeJob(job *Job) (string, error) {
	data, err := job.marshal()
	if err != nil {
		return "", err
	}
	file := filepath.Join(g.path, "job.json")
	return file, os.WriteFile(file, data, 0o600)
}

// link gives file a name that is free of the commas and colons that mean
// something to kernels and emulators.
func (g *guest) link(name, file string) (string, error) {
	link := filepath.Join(g.path, name)
	return link, os.Symlink(file, link)
}

func (g *guest) linkDisks(disks Disks) (links []string, err error) {
	for i, disk := range disks {
		link, err := g.link("disk"+strconv.Itoa(i), disk.Name())
		if err != nil {
			return nil, err
		}
		links = append(links, link)
	}
	return links, nil
}

// run boots the kernel by cmd, to which the inlets are descriptors 3, 4 and 5,
// and returns the status of the guest's command when the kernel is gone. It is
// killed, for it has nothing more to do: pid 1 has written all data to the disks.
func (g *guest) run(ctx context.Context, cmd *exec.Cmd) (int, error) {
	out, err := newOutput()
	if err != nil {
		return 0, err
	}
	defer out.close()
	cmd.ExtraFiles = out.inlets
	cmd.Stdout, cmd.Stderr = g.console.file, g.console.file
	if err := startCaged(cmd); err != nil {
		return 0, err
	}
	out.closeInlets()
	kill := func() { _ = cmd.Process.Kill() }
	defer context.AfterFunc(ctx, kill)()
	out.copy(os.Stdout, os.Stderr, kill)
	_ = cmd.Wait() // for its end, not for its status
	return g.verdict(ctx, out)
}

// verdict says how the boot ended, once the kernel is gone.
func (g *guest) verdict(ctx context.Context, out *output) (int, error) {
	status, ok := out.status()
	switch {
	case !ok && ctx.Err() != nil:
		return 0, fmt.Errorf("%w (console: %s)", context.Cause(ctx), g.console.keep())
	case !ok:
		return 0, fmt.Errorf("%s (console: %s)", g.console.lastWords(), g.console.keep())
	}
	if trouble := g.console.trouble(); trouble != "" {
		fmt.Fprintf(os.Stderr, "box: warning: the kernel said: %s (console: %s)\n", trouble, g.console.keep())
	}
	return status, out.err
}
