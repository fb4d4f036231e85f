package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startDaemon starts a program of the control plane, to outlive this process.
func startDaemon(p *Plan, program string, args ...string) error {
	_, err := startDetached(p, filepath.Join(logs(), program+".log"), program, args...)
	return err
}

// startDetached starts a program in the cluster's network, in a session of its own.
func startDetached(p *Plan, log, program string, args ...string) (*exec.Cmd, error) {
	file, err := p.find(program)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(file, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + p.path(), "HOME=/root"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := inNetwork(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() { _ = cmd.Wait() }() // buries it, should it end before us
	return cmd, nil
}

// find returns the file of one of the cluster's programs.
func (p *Plan) find(program string) (string, error) {
	if filepath.IsAbs(program) {
		return program, nil
	}
	for _, dir := range p.Programs {
		if file := filepath.Join(dir, program); isFile(file) {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program %s in %s", program, strings.Join(p.Programs, ", "))
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// A process is one that we, or an earlier command, started. Its time of birth tells
// it from a later one of the same number.
type process struct {
	Pid   int
	Birth uint64
}

func processOf(pid int) (process, error) {
	birth, alive := birthOf(pid)
	if !alive {
		return process{}, fmt.Errorf("process %d has ended already", pid)
	}
	return process{pid, birth}, nil
}

// String prints p as parseProcess reads it.
func (p process) String() string { return fmt.Sprintf("%d %d\n", p.Pid, p.Birth) }

func parseProcess(s string) (p process, err error) {
	_, err = fmt.Sscanf(s, "%d %d\n", &p.Pid, &p.Birth)
	return p, err
}

func (p process) alive() bool {
	birth, alive := birthOf(p.Pid)
	return alive && birth == p.Birth
}

// end asks the process to end, and kills it if it does not.
func (p process) end(patience time.Duration) error {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if !p.alive() {
			return nil
		}
		if err := unix.Kill(p.Pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		for limit := time.Now().Add(patience); p.alive() && time.Now().Before(limit); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if p.alive() {
		return fmt.Errorf("process %d does not end", p.Pid)
	}
	return nil
}

// birthOf returns when a process began, in the kernel's ticks, and whether it still
// runs: one that only waits to be buried does not.
func birthOf(pid int) (birth uint64, alive bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	return parseStat(string(stat))
}

// parseStat reads /proc/PID/stat: pid (name) state ... and the birth as 22nd field. The
// name may have spaces and parentheses.
func parseStat(stat string) (birth uint64, alive bool) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, false
	}
	birth, err := strconv.ParseUint(fields[19], 10, 64)
	return birth, err == nil && fields[0] != "Z" && fields[0] != "X"
}
