package devmapper

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// WithAligned calls do with a buffer of length bytes that direct I/O can use: it
// begins at a page, which a Go slice need not.
func WithAligned(length int, do func([]byte) (int, error)) (int, error) {
	if length == 0 {
		return do(nil)
	}
	b, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, os.NewSyscallError("mmap", err)
	}
	n, err := do(b)
	return n, errors.Join(err, unix.Munmap(b))
}
