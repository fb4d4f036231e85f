package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

// cageName is how this program is called when it is to be a cage.
const cageName = "box-cage"

// startCaged starts cmd below pid 1 of a process namespace. Whatever ends the
// cage ends every process in it, and nothing else: cmd.Process.Kill, or our own
// death, even by kill -9.
//
// The kernel cannot be pid 1 itself: a user mode Linux that panics aborts, and
// pid 1 is immune to that signal.
func startCaged(cmd *exec.Cmd) error {
	runtime.LockOSThread() // Pdeathsig is about the thread, which must not end before us
	files := strconv.Itoa(3 + len(cmd.ExtraFiles))
	cmd.Args = append([]string{cageName, files, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/proc/self/exe"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a terminal's ^C is ours to handle
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a process namespace, which only root may: %w", err)
	}
	return nil
}

// beCage runs a command that inherits the first so many descriptors, and ends
// with it.
func beCage(count string, command []string) {
	n, _ := strconv.Atoi(count)
	files := make([]uintptr, n)
	for fd := range files {
		files[fd] = uintptr(fd)
	}
	pid, err := syscall.ForkExec(command[0], command, &syscall.ProcAttr{Env: os.Environ(), Files: files})
	if err != nil {
		fmt.Println("box:", err)
		os.Exit(boxFailed)
	}
	_, _ = buryUntil(pid) // a kernel's status says nothing: it may panic and leave with 0
	os.Exit(0)
}
