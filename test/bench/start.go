package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// Limits of a start with 10 000 devices of which none is active.
const (
	mostMemory = 64 * mib
	mostStart  = time.Second
)

const startTitle = "start"

// A start is what opening a set took a process of its own.
type start struct {
	took    time.Duration
	memory  int64 // resident, in bytes
	devices int
}

// startCommand makes the bench such a process:
// bench start ROOT HOW OPTION...
const startCommand = "start"

// How such a process ends.
const (
	byShutdown = "shutdown"
	byKill     = "kill" // amid creates
)

// startIn opens the set of this rig in another process.
func (r *setRig) startIn(how string) (s start, err error) {
	cmd := exec.Command("/proc/self/exe", append([]string{startCommand, r.root, how}, r.options...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if how == byKill {
		err = wasKilled(cmd.ProcessState, err)
	}
	if err == nil {
		_, err = fmt.Sscan(string(out), &s.took, &s.memory, &s.devices)
	}
	return s, err
}

// wasKilled returns nil for a process that ended by SIGKILL, which is an error to
// those who wait for one.
func wasKilled(state *os.ProcessState, err error) error {
	if state == nil {
		return err
	}
	if s, ok := state.Sys().(syscall.WaitStatus); ok && s.Signal() == unix.SIGKILL {
		return nil
	}
	return fmt.Errorf("it was to be killed, and ended by itself: %s", state)
}

// beStarted is that process.
func beStarted(root, how string, options []string) error {
	begin := time.Now()
	set, err := deviceset.NewDeviceSet(root, false, options, nil, nil)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	memory, err := residentMemory()
	if err != nil {
		return err
	}
	fmt.Println(took.Nanoseconds(), memory, len(set.List()))
	if how == byKill {
		return dieCreating(set)
	}
	return set.Shutdown(root)
}

// dieCreating kills this process while 16 devices are being made, when lateDevices
// are.
func dieCreating(set *deviceset.DeviceSet) error {
	var made atomic.Int64
	_, err := inParallel(2*lateDevices, parallel, func(i int) error {
		name := fmt.Sprintf("late-%d-%d", os.Getpid(), i)
		err := set.CreateDevice(name, "", deviceset.DeviceOptions{FS: "none", Size: volumeSize})
		if err == nil && made.Add(1) == lateDevices {
			err = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		return err
	})
	return err
}

const lateDevices = 100

// residentMemory returns the VmRSS of this process.
func residentMemory() (bytes int64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok && err == nil {
			_, err = fmt.Sscan(rest, &bytes)
		}
	}
	return bytes << 10, err
}

// start ends the set and measures starts.
func (r *setRig) start(o *origins, f *findings) error {
	if err := errors.Join(o.unmount(), r.shutdown()); err != nil {
		return err
	}
	shut, killed, err := r.starts()
	if err != nil {
		return err
	}
	f.addStarts(startTitle+" after a shutdown", shut)
	f.addStarts(startTitle+" after a kill amid creates", killed)
	return nil
}

// starts measures starts after a shutdown, of which the first reads every create
// from the journal and the others a checkpoint, and starts after a kill.
func (r *setRig) starts() (shut, killed []start, err error) {
	after, last := byShutdown, start{}
	for _, how := range []string{byShutdown, byShutdown, byShutdown, byKill, byKill, byKill, byKill, byShutdown} {
		s, err := r.startIn(how)
		if err != nil {
			return nil, nil, fmt.Errorf("start after a %s: %w", after, err)
		}
		switch {
		case after == byShutdown:
			shut = append(shut, s)
		case s.devices < last.devices+lateDevices:
			return nil, nil, fmt.Errorf("start after a kill: %d devices, and %d were there or acknowledged", s.devices, last.devices+lateDevices)
		default:
			killed = append(killed, s)
		}
		after, last = how, s
	}
	return shut, killed, nil
}

// addStarts tells what some starts took. What else the machine does only adds to
// that, so the limits are for the least.
func (f *findings) addStarts(title string, starts []start) {
	var took []string
	least := starts[0]
	for _, s := range starts {
		took = append(took, fmt.Sprint(s.took.Milliseconds()))
		least.took, least.memory = min(least.took, s.took), min(least.memory, s.memory)
	}
	f.tell("%s, %d devices, none active: %s ms, %.1f MiB resident",
		title, least.devices, strings.Join(took, ", "), float64(least.memory)/float64(mib))
	if least.took > mostStart {
		f.breaks("%s: %v, want %v at most", title, least.took, mostStart)
	}
	if least.memory > mostMemory {
		f.breaks("%s: %d bytes resident, want %d at most", title, least.memory, mostMemory)
	}
}
