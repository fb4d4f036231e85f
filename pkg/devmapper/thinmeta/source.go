package thinmeta

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A source is a metadata device, or an image of one.
type source struct {
	mu    sync.Mutex
	file  io.ReaderAt
	page  []byte // aligned for direct I/O, as a Go slice need not be; nil when closed
	reads uint64
}

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
	page, err := unix.Mmap(-1, 0, blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &source{file: file, page: page}, nil
}

// read returns block n, unchecked. n is below maxBlocks.
func (s *source) read(n uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.page == nil {
		return nil, os.ErrClosed
	}
	s.reads++
	got, err := s.file.ReadAt(s.page, int64(n)*int64(blockSize))
	if got == blockSize {
		return append([]byte(nil), s.page...), nil
	}
	if err == io.EOF {
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
	if s.page == nil {
		return nil
	}
	if c, ok := s.file.(io.Closer); ok {
		err = c.Close()
	}
	err = errors.Join(err, unix.Munmap(s.page))
	s.page = nil
	return err
}
