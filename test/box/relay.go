package main

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A relay carries what the command writes to a device that leads outside. The
// command has a pipe and not the device itself: programs that find a terminal
// print differently.
type relay struct {
	inlet  *os.File
	pipe   *os.File
	device *os.File
	bytes  int64
	idle   chan struct{} // closed when the copying has ended
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
	r := &relay{inlet: inlet, pipe: pipe, device: out, idle: make(chan struct{})}
	go func() {
		defer close(r.idle)
		r.bytes, _ = io.Copy(r.device, r.pipe)
	}()
	return r, nil
}

// drain carries what was written so far, and returns how many bytes that is. It
// does not wait for the end of the pipe, which daemons that the command left
// behind hold open.
func (r *relay) drain() int64 {
	_ = r.pipe.SetReadDeadline(time.Now()) // ends the copying
	<-r.idle
	_ = r.pipe.SetReadDeadline(time.Time{})
	if pipe, err := r.pipe.SyscallConn(); err == nil {
		_ = pipe.Read(func(fd uintptr) (done bool) {
			r.copyNow(int(fd))
			return true
		})
	}
	return r.bytes
}

// copyNow copies what the pipe holds at this moment.
func (r *relay) copyNow(fd int) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buffer) // the runtime made fd non-blocking
		if n <= 0 || err != nil {
			return
		}
		_, _ = r.device.Write(buffer[:n])
		r.bytes += int64(n)
	}
}
