package devmapper

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// WithAligned calls do with a buffer of length bytes that direct I/O can use: it
// begins at a page, which a Go slice need not. What is in it is left over from
// earlier uses. do must not keep it.
func WithAligned(length int, do func([]byte) (int, error)) (int, error) {
	b, err := alignedBuffer(length)
	if err != nil {
		return 0, err
	}
	n, err := do(b[:length])
	return n, errors.Join(err, giveBack(b))
}

// spareSize is the length of the buffers that are kept: mapping memory anew costs as
// much as the I/O of a few blocks.
const spareSize = 256 << 10

var spares = make(chan []byte, 4)

func alignedBuffer(length int) ([]byte, error) {
	if length <= spareSize {
		select {
		case b := <-spares:
			return b, nil
		default:
		}
	}
	b, err := unix.Mmap(-1, 0, max(length, spareSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	return b, os.NewSyscallError("mmap", err)
}

func giveBack(b []byte) error {
	if len(b) == spareSize {
		select {
		case spares <- b:
			return nil
		default:
		}
	}
	return os.NewSyscallError("munmap", unix.Munmap(b))
}
