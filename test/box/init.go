package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// beInit is pid 1 of a guest: it makes the world that the job describes, runs
// the command in it, and tells how it ended. It does without a shell and tools,
// because in user mode Linux each process costs 20 ms to start.
func beInit(jobFile string) {
	if err := serve(jobFile); err != nil {
		fmt.Println("box:", err) // on the console, where the box looks for it
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func serve(jobFile string) error {
	job, err := readJob(jobFile)
	if err != nil {
		return err
	}
	if len(job.Args) == 0 {
		fmt.Println(alive)
		return nil
	}
	if err := job.enterWorld(); err != nil {
		return err
	}
	stdout, err := newRelay(job.Stdout)
	if err != nil {
		return err
	}
	stderr, err := newRelay(job.Stderr)
	if err != nil {
		return err
	}
	status, err := job.run(stdout.inlet, stderr.inlet)
	if err != nil {
		return err
	}
	last := lastLine{Status: status, Stdout: stdout.drain(), Stderr: stderr.drain()}
	syncDisks()
	return tell(job.LastLine, last)
}

// run runs the command and returns its exit status as a shell would. Orphans
// are buried on the way, for pid 1 inherits them.
func (j *Job) run(stdout, stderr *os.File) (int, error) {
	path, err := j.lookPath()
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(path, j.Args, &syscall.ProcAttr{
		Dir:   j.Dir,
		Env:   j.Env,
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("run %s in %s: %w", path, j.Dir, err)
	}
	stdout.Close()
	stderr.Close()
	time.AfterFunc(time.Until(j.ShowBlocked), showBlocked)
	return buryUntil(pid)
}

// lookPath finds the command as a process in the job's place would.
func (j *Job) lookPath() (string, error) {
	if err := os.Chdir(j.Dir); err != nil {
		return "", err
	}
	for _, pair := range j.Env {
		if path, ok := strings.CutPrefix(pair, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	return exec.LookPath(j.Args[0])
}

func buryUntil(pid int) (status int, err error) {
	for {
		var end unix.WaitStatus
		dead, err := unix.Wait4(-1, &end, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case dead == pid && end.Signaled():
			return 128 + int(end.Signal()), nil
		case dead == pid:
			return end.ExitStatus(), nil
		}
	}
}

// showBlocked makes the kernel print the stacks of all tasks that wait in it,
// which tells what a time-out was about.
func showBlocked() {
	_ = os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
}

// tell writes the last line and waits to be killed, which happens when the
// command's output is outside.
func tell(device string, last lastLine) error {
	out, err := openDevice(device)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(out, last); err != nil {
		return err
	}
	select {}
}

// syncTime is how long data may take to get written. A device that a test left
// suspended takes none, for ever.
const syncTime = 5 * time.Second

// syncDisks writes all data to the disks, as far as they take them.
func syncDisks() {
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(syncTime):
	}
}
