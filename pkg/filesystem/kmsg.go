package filesystem

import (
	"errors"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A kernelLog reads what the kernel logs from its opening on. mount(2) answers
// with a number, and with the reason there. Where the log cannot be read, as
// without CAP_SYSLOG, it is empty.
type kernelLog struct{ fd int }

func openKernelLog() kernelLog {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return kernelLog{-1}
	}
	if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
		_ = unix.Close(fd)
		return kernelLog{-1}
	}
	return kernelLog{fd}
}

func (l kernelLog) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
	}
}

const (
	maxKernelWords   = 256  // bytes
	maxKernelRecords = 1000 // somebody else may be flooding the log
	kernelRecordSize = 8192 // kernel/printk: no record is longer
)

// about returns the end of what was logged about a device or a file system type,
// in one line.
func (l kernelLog) about(device string, t Type) string {
	name := kernelNameOf(device)
	var words []string
	for range maxKernelRecords {
		message, ok := l.next()
		if !ok {
			break
		}
		if concerns(message, name, t) {
			words = append(words, message)
		}
	}
	s := strings.Join(words, "; ")
	return strings.ToValidUTF8(s[max(0, len(s)-maxKernelWords):], "")
}

// next returns the next message, if there is one now.
func (l kernelLog) next() (message string, ok bool) {
	buffer := make([]byte, kernelRecordSize)
	for l.fd >= 0 {
		n, err := unix.Read(l.fd, buffer)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue // the oldest messages were overwritten
		}
		return messageOf(string(buffer[:max(0, n)])), err == nil
	}
	return "", false
}

// messageOf cuts the message out of a record of /dev/kmsg:
//
//	<priority>,<number>,<time>,<flags>[,...];<message>\n[ <key>=<value>\n]...
func messageOf(record string) string {
	_, message, _ := strings.Cut(record, ";")
	message, _, _ = strings.Cut(message, "\n")
	return strings.TrimSpace(message)
}

// concerns tells messages about a device, and those about a file system type that
// name no device: that is how the kernel complains of options.
func concerns(message, name string, t Type) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "("+name+")") || strings.Contains(message, "/"+name+":") ||
		strings.HasPrefix(message, string(t)+": ") || strings.HasPrefix(message, string(t)+"-fs: ")
}

// kernelNameOf returns the kernel's name of a device, or what is as good.
func kernelNameOf(device string) string {
	if number, err := numberOf(device); err == nil {
		if name, err := number.kernelName(); err == nil {
			return name
		}
	}
	return filepath.Base(device)
}
