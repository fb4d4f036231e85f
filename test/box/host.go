package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// host is this machine's own kernel, if it has thin pools. Nothing is shielded:
// what the command does to the machine lasts.
type host struct{}

func (host) Run(ctx context.Context, _ *Config, job *Job, disks Disks) (int, error) {
	if err := hostHasThinPools(ctx); err != nil {
		return 0, err
	}
	loops, err := attachLoops(disks)
	defer loops.detach()
	if err != nil {
		return 0, err
	}
	job.withDisks(loops.names())
	os.Setenv("PATH", withAdminDirs(os.Getenv("PATH")))
	cmd := exec.Command(job.Args[0], job.Args[1:]...)
	cmd.Env = job.Env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread, which must not end before us
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })()
	err = cmd.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return exitStatus(cmd, err)
}

// exitStatus returns the status that a shell would.
func exitStatus(cmd *exec.Cmd, err error) (int, error) {
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	end := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if end.Signaled() {
		return 128 + int(end.Signal()), nil
	}
	return end.ExitStatus(), nil
}

// hostHasThinPools asks for the module first, whose lack is no proof: the
// target may be built in.
func hostHasThinPools(ctx context.Context) error {
	_ = exec.CommandContext(ctx, "modprobe", "dm-thin-pool").Run()
	targets, err := exec.CommandContext(ctx, "dmsetup", "targets").Output()
	if err != nil || !strings.Contains(string(targets), "thin-pool") {
		release, _ := kernelRelease()
		return fmt.Errorf("this machine's kernel %s has no device-mapper thin pools: take -kernel uml or smp", release)
	}
	return nil
}

// loops are the loop devices of a box's disks.
type loops []*os.File

func attachLoops(disks Disks) (l loops, err error) {
	for _, disk := range disks {
		device, err := attachLoop(disk)
		if err != nil {
			return l, fmt.Errorf("attach %s to a loop device: %w", disk.Name(), err)
		}
		l = append(l, device)
	}
	return l, nil
}

// attachLoop takes the first free loop device, and the next one if another
// program is faster.
func attachLoop(disk *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(disk.Fd())}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
}

// detach gives the devices back; one that is still in use goes when it no
// longer is.
func (l loops) detach() {
	for _, device := range l {
		_ = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
		device.Close()
	}
}

func (l loops) names() (names []string) {
	for _, device := range l {
		names = append(names, device.Name())
	}
	return names
}
