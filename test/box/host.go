package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
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

// hostHasThinPools has the kernel load what it needs. It does not load
// device-mapper itself where /dev has no node for it, so modprobe comes first; its
// failure is no proof, for the target may be built in.
func hostHasThinPools(ctx context.Context) error {
	_ = exec.CommandContext(ctx, "modprobe", "dm-thin-pool").Run()
	kernel, err := dm.Open()
	if err == nil {
		_, err = dm.GetTarget(kernel, dm.ThinPool{}.TargetType())
		err = errors.Join(err, kernel.Close())
	}
	if err != nil {
		release, _ := kernelRelease()
		return fmt.Errorf("this machine's kernel %s has no device-mapper thin pools: take -kernel uml or smp: %w", release, err)
	}
	return nil
}

// loops are the loop devices of a box's disks.
type loops []*loop.Device

func attachLoops(disks Disks) (l loops, err error) {
	for _, disk := range disks {
		device, err := loop.Attach(disk.Name(), loop.Options{})
		if err != nil {
			return l, err
		}
		l = append(l, device)
	}
	return l, nil
}

// detach gives the devices back; one that is still in use goes when it no
// longer is.
func (l loops) detach() {
	for _, device := range l {
		_ = errors.Join(device.Detach(), device.Close())
	}
}

func (l loops) names() (names []string) {
	for _, device := range l {
		names = append(names, device.Name())
	}
	return names
}
