package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		usable = fmt.Append(nil, q.bootsByKVM(ctx))
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

// bootsByKVM tells whether our pid 1 comes to life under KVM.
func (q *qemuMachine) bootsByKVM(ctx context.Context) bool {
	dir, err := os.MkdirTemp("", "box-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	initramfs := filepath.Join(dir, "initramfs")
	if err := q.writeInitramfs(initramfs, &Job{}); err != nil {
		return false
	}
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		return false
	}
	defer console.Close()

	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.Command(q.qemu, append(q.args(initramfs, byKVM), "-m", "512M", "-smp", "2", "-serial", "file:"+console.Name())...)
	if err := startCaged(cmd); err != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	_ = cmd.Wait()
	said, _ := os.ReadFile(console.Name())
	return bytes.Contains(said, []byte(alive))
}
