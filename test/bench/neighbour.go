package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A neighbour is a device of the same pool whose owner writes all the time, and
// notes what lay longest between the ends of two writes: on a single CPU it may be
// between two of its writes that it is held up.
type neighbour struct {
	file *os.File
	quit chan struct{}
	done chan error
	last time.Duration
	all  times
}

func newNeighbour(r *setRig) (*neighbour, error) {
	const name = "neighbour"
	if err := r.blank(name, mib); err != nil {
		return nil, err
	}
	f, err := r.openDirect(name)
	if err != nil {
		return nil, err
	}
	r.later(func() error { return errors.Join(f.Close(), r.set.DeactivateDevice(name)) })
	n := &neighbour{file: f}
	return n, n.write() // maps the block: from now on writes wait for nothing but the pool
}

func (n *neighbour) write() error {
	_, err := dm.WithAligned(4096, func(b []byte) (int, error) { return n.file.WriteAt(b, 0) })
	return err
}

// start begins to write; stop ends it and keeps the worst time.
func (n *neighbour) start() error {
	n.quit, n.done, n.last = make(chan struct{}), make(chan error, 1), 0
	go func() { n.done <- n.run() }()
	return nil
}

func (n *neighbour) run() error {
	for ended := time.Now(); ; {
		select {
		case <-n.quit:
			return nil
		default:
		}
		if err := n.write(); err != nil {
			return err
		}
		now := time.Now()
		n.last, ended = max(n.last, now.Sub(ended)), now
	}
}

func (n *neighbour) stop() error {
	close(n.quit)
	err := <-n.done
	n.all = append(n.all, n.last)
	return err
}

func (n *neighbour) take() times {
	all := n.all
	n.all = nil
	slices.Sort(all)
	return all
}

// openDirect activates a device and opens it past the page cache.
func (r *setRig) openDirect(name string) (*os.File, error) {
	path, err := r.set.ActivateDevice(name)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
}

// fill maps all blocks of a device, pieces of so many bytes in random order, by
// zeros of which the kernel writes many at once.
func (r *setRig) fill(name string, size, piece int64) error {
	f, err := r.openDirect(name)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same order each time
	for _, i := range random.Perm(int(size / piece)) {
		if err == nil {
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, int64(i)*piece, piece)
		}
	}
	return errors.Join(err, f.Close(), r.set.DeactivateDevice(name))
}
