package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// This program and box are copied into the cluster's folder, so that a node can be
// booted whatever becomes of the files that they were.
func ownProgram(name string) string { return filepath.Join(home, "bin", name) }

func copyOwnPrograms() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	box, err := boxProgram()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(ownProgram(""), 0o755); err != nil {
		return err
	}
	if err := copyFile(ownProgram("cluster"), self, 0o755); err != nil {
		return err
	}
	return copyFile(ownProgram("box"), box, 0o755)
}

// boxProgram returns the box that lies beside this program.
func boxProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	box := filepath.Join(filepath.Dir(self), "box")
	if !isFile(box) {
		return "", fmt.Errorf("no %s: `make build/box`", box)
	}
	return box, nil
}

// makeDisks gives the node its disks.
func (n Node) makeDisks(ctx context.Context, p *Plan) error {
	if err := os.MkdirAll(n.log(), 0o755); err != nil {
		return err
	}
	return runQuietly(exec.CommandContext(ctx, "cp", "--sparse=always", "--reflink=auto", p.NodeDisk, n.disk("node")))
}

func (n Node) disk(name string) string { return filepath.Join(n.folder(), name+".disk") }

func (n Node) processFile() string { return filepath.Join(n.folder(), "process") }

// boot starts the node's kernel.
func (n Node) boot(p *Plan) error {
	if n.running() {
		return fmt.Errorf("%s is running", n.name())
	}
	args := []string{
		"-kernel", "uml", "-mem", p.Memory, "-timeout", "240h", "-tap", n.tap(), "-out", n.log(),
		"-disk", n.disk("node"),
	}
	for _, d := range poolDisks {
		args = append(args, "-disk", n.disk(d.name)+":"+d.size)
	}
	args = append(args, ownProgram("cluster"), "node", n.name())
	cmd, err := startDetached(p, filepath.Join(n.log(), "node.log"), ownProgram("box"), args...)
	if err != nil {
		return err
	}
	process, err := processOf(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("boot %s: %w (see %s)", n.name(), err, n.log())
	}
	return os.WriteFile(n.processFile(), []byte(process.String()), 0o644)
}

// process returns the box of the node.
func (n Node) process() (process, error) {
	data, err := os.ReadFile(n.processFile())
	if err != nil {
		return process{}, err
	}
	return parseProcess(string(data))
}

func (n Node) running() bool {
	process, err := n.process()
	return err == nil && process.alive()
}

// cutPower ends the node's kernel between two instructions. Box does so when it is told to
// end, and returns when nothing of the kernel is left.
func (n Node) cutPower() error {
	process, err := n.process()
	if err != nil {
		return fmt.Errorf("%s was never booted: %w", n.name(), err)
	}
	if err := process.end(10 * time.Second); err != nil {
		return fmt.Errorf("cut the power of %s: %w", n.name(), err)
	}
	return nil
}

// awaitNode waits for the node to be Ready, or to have died.
func awaitNode(ctx context.Context, n Node) error {
	api, err := newAPI()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = poll(ctx, nodeTime, n.name()+" Ready", func() error {
		if !n.running() {
			cancel(fmt.Errorf("%s has died: see %s", n.name(), n.log()))
		}
		return n.readySince(ctx, api)
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// nodeTime is how long a node may take to boot, on a machine that has other things
// to do as well.
const nodeTime = 3 * time.Minute
