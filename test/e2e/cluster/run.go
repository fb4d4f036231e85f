package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run is the command that has a cluster for the time of another one.
func run(ctx context.Context, args []string) (err error) {
	var p Plan
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	upFlags(flags, &p)
	limit := flags.Duration("timeout", time.Hour, "`time` until the command is ended")
	folder := flags.String("collect", failureFolder(), "`folder` for what is to be known of a failure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errUsage
	}
	if *folder, err = filepath.Abs(*folder); err != nil {
		return err
	}
	s := newSteps()
	lock, err := claim(s)
	if err != nil {
		return err
	}
	defer lock.release()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not finished after %v: give it longer with -timeout", *limit))
	defer cancel()

	err = p.bringUp(ctx, s)
	if err == nil {
		err = p.runCommand(ctx, s, flags.Args())
	}
	if err != nil {
		_ = p.collectInto(context.WithoutCancel(ctx), s, *folder)
	}
	if left := removeCluster(); left != nil {
		return errors.Join(left, err)
	}
	s.done("down")
	return err
}

// runCommand runs the command in the cluster's network. Its status is ours. When ctx
// ends it, and what it started, is asked to end, and killed a while after.
func (p *Plan) runCommand(ctx context.Context, s *steps, args []string) error {
	name := filepath.Base(args[0])
	cmd := command(ctx, p, args)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := inNetwork(cmd.Start); err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	s.done("running %s", name)
	status, why := outcome(cmd.Wait())
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what it left running
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, context.Cause(ctx)) // whatever it said when it was ended
	case why != "":
		return fmt.Errorf("%s: %s", name, why)
	case status != 0:
		s.done("%s failed with status %d", name, status)
		return exitStatus(status)
	}
	s.done("%s passed", name)
	return nil
}
