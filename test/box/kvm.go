package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// probeTime is ample for a kernel to start under KVM, where KVM works.
const probeTime = 5 * time.Second

// alive is what pid 1 says when it was started without a job's command.
const alive = "box: alive"

// The ways QEMU may run a machine. Emulation is the way that always works.
var (
	byKVM       = []string{"-accel", "kvm", "-cpu", "host"}
	byEmulation = []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
)

// accelerator returns the fastest way that works. That /dev/kvm is there proves
// nothing: inside a virtual machine a guest may die or hang at its first
// instructions. So it is tried, once for each boot of this machine.
func accelerator(ctx context.Context, q *qemuMachine) []string {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return byEmulation
	}
	verdict := verdictFile()
	usable, err := os.ReadFile(verdict)
	if err != nil {
		usable = fmt.Append(nil, q.boots(ctx, byKVM))
		if ctx.Err() == nil {
			_ = os.WriteFile(verdict, usable, 0o644) // if that fails, the next box tries again
		}
	}
	if string(usable) == "true" {
		return byKVM
	}
	return byEmulation
}

// verdictFile is new with each boot of this machine.
func verdictFile() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return filepath.Join("/run", "box-kvm-"+strings.TrimSpace(string(id)))
}

// boots tells whether our pid 1 comes to life that way.
func (q *qemuMachine) boots(ctx context.Context, way []string) bool {
	dir, err := newPrivateDir()
	if err != nil {
		return false
	}
	defer dir.close()
	initramfs, console := filepath.Join(dir.path, "initramfs"), filepath.Join(dir.path, "console")
	if err := q.writeInitramfs(initramfs, &Job{}); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.Command(q.qemu, slices.Concat(q.args(initramfs, console), way, []string{"-m", "512M", "-smp", "2"})...)
	if err := startCaged(cmd); err != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	_ = cmd.Wait() // for its end, not for its status
	said, _ := os.ReadFile(console)
	return bytes.Contains(said, []byte(alive))
}
