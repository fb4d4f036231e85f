package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// beInit is pid 1 of a guest: it makes the world that the job describes, runs
// the command in it, tells the status and powers off. It does without a shell
// and tools, because in user mode Linux each process costs 20 ms to start.
func beInit(jobFile string) {
	if err := serve(jobFile); err != nil {
		fmt.Println("box:", err) // on the console, where the box looks for it
	}
	powerOff()
}

func serve(jobFile string) error {
	job, err := readJob(jobFile)
	if err != nil {
		return err
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
	stdout.drain()
	stderr.drain()
	return tell(job.Status, status)
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
	time.AfterFunc(j.Patience, showBlocked)
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
	os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
}

// tell writes the status on its device.
func tell(device string, status int) error {
	out, err := openDevice(device)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, status)
	finish(out)
	return nil
}

// powerOff ends this kernel. Unwritten data may wait for a device that a test
// left suspended, so they do not get for ever.
func powerOff() {
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(powerOffTime / 2):
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// A relay carries what the command writes to a device that leads outside. The
// command has a pipe and not the device itself: programs that find a terminal
// print differently.
type relay struct {
	inlet  *os.File
	pipe   *os.File
	device *os.File
	done   chan struct{}
}

func newRelay(device string) (*relay, error) {
	out, err := openDevice(device)
	if err != nil {
		return nil, err
	}
	pipe, inlet, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r := &relay{inlet: inlet, pipe: pipe, device: out, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		io.Copy(r.device, r.pipe)
	}()
	return r, nil
}

// drain returns when all that was written so far is outside. It does not wait
// for the end of the pipe, which daemons that the command left behind hold open.
func (r *relay) drain() {
	r.pipe.SetReadDeadline(time.Now()) // ends the copying
	<-r.done
	r.pipe.SetReadDeadline(time.Time{})
	if pipe, err := r.pipe.SyscallConn(); err == nil {
		pipe.Read(func(fd uintptr) (done bool) {
			r.copyNow(int(fd))
			return true
		})
	}
	finish(r.device)
}

// copyNow copies what the pipe holds at this moment.
func (r *relay) copyNow(fd int) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buffer) // the runtime made fd non-blocking
		if n <= 0 || err != nil {
			return
		}
		r.device.Write(buffer[:n])
	}
}
