package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// deviceTime is how long a device may take to appear: a virtio port does so
// some time after its driver was loaded.
const deviceTime = 10 * time.Second

// openDevice opens a character device for writing, in blocking mode, and if it
// is a terminal makes it pass every byte as it is.
func openDevice(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	for limit := time.Now().Add(deviceTime); err == unix.ENOENT && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
		fd, err = unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if termios, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		termios.Oflag &^= unix.OPOST
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, termios); err != nil {
			return nil, fmt.Errorf("make %s raw: %w", path, err)
		}
	}
	return os.NewFile(uintptr(fd), path), nil
}
