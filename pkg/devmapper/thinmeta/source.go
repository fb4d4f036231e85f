package thinmeta

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A source is a metadata device, or an image of one.
type source struct {
	mu     sync.Mutex
	file   io.ReaderAt
	buffer []byte // aligned for direct I/O, as a Go slice need not be; nil when closed
	reads  uint64
}

// maxRun is how many blocks are read at once, at most.
const maxRun = 256

// openSource opens a device for direct I/O: the kernel writes metadata past the
// page cache, which may therefore be stale. A file in tmpfs has no direct I/O, and
// no need of it.
func openSource(path string) (*source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	s, err := newSource(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func newSource(file io.ReaderAt) (*source, error) {
	buffer, err := unix.Mmap(-1, 0, maxRun*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &source{file: file, buffer: buffer}, nil
}

// read returns count blocks from block n on, unchecked. n is below maxBlocks.
func (s *source) read(n uint64, count int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buffer == nil {
		return nil, os.ErrClosed
	}
	s.reads += uint64(count)
	b := s.buffer[:count*blockSize]
	got, err := s.file.ReadAt(b, int64(n)*int64(blockSize))
	if got == len(b) {
		return bytes.Clone(b), nil
	}
	if errors.Is(err, io.EOF) {
		err = corrupt(n, "lies beyond the end of the device")
	}
	return nil, err
}

func (s *source) readCount() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

func (s *source) close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buffer == nil {
		return nil
	}
	if c, ok := s.file.(io.Closer); ok {
		err = c.Close()
	}
	err = errors.Join(err, unix.Munmap(s.buffer))
	s.buffer = nil
	return err
}
