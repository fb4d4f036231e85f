package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

const (
	mib       = dm.Sectors(1 << 20 / dm.SectorSize)
	smallPool = 64 * mib
	largePool = 256 * mib
	volume    = 512 * mib // more than the pool has: that is what thin means
)

// A stage is what the demo acts on. What it makes it takes down again, the last
// thing first.
type stage struct {
	kernel  *dm.Control
	machine dmtest.Machine
	dir     string
	table   dm.ThinPool
	pool    dm.Pool
	dev     dm.DevNo // of the pool
	undo    []func() error
	// belowVolumes is how much there is to undo once the volumes are gone.
	belowVolumes int
}

type step struct {
	name string
	do   func() error
}

func newStage() (s *stage, err error) {
	s = &stage{}
	if s.kernel, err = dm.Open(); err != nil {
		return nil, err
	}
	s.dir, err = os.MkdirTemp("/dev/shm", "demo-")
	s.later(func() error { return os.RemoveAll(s.dir) })
	s.machine = dmtest.NewMachine(s.kernel, s.dir)
	return s, err
}

func (s *stage) later(undo func() error) { s.undo = append(s.undo, undo) }

// close takes everything down; again does nothing.
func (s *stage) close() error { return s.downTo(0) }

// downTo takes down what was made after the first n things.
func (s *stage) downTo(n int) (err error) {
	for len(s.undo) > n {
		last := len(s.undo) - 1
		err = errors.Join(err, s.undo[last]())
		s.undo = s.undo[:last]
	}
	return err
}

func (s *stage) steps() []step {
	return []step{
		{"make a thin pool of 64 MiB", s.makePool},
		{"make a volume of 512 MiB: one message", func() error { return s.pool.CreateThin(1) }},
		{"activate, format and mount it", func() error { return s.mount(1, "ext4") }},
		{"write a file and sync it", func() error { return s.write("first", 4<<20) }},
		{"take a snapshot while the volume is written", s.snapshotUnderLoad},
		{"mount the snapshot: the file is there, whole", s.readSnapshot},
		{"fill the pool through a raw block volume", s.fillPool},
		{"grow the pool to 256 MiB, with everything in use", s.grow},
		{"write another file", func() error { return s.write("after", 16<<20) }},
		{"unmount, deactivate and delete all volumes", func() error { return s.downTo(s.belowVolumes) }},
	}
}

func (s *stage) makePool() error {
	var devs []dm.DevNo
	for _, size := range []dm.Sectors{4 * mib, largePool} {
		disk, err := s.machine.NewDisk(size)
		if err != nil {
			return err
		}
		s.later(disk.Close)
		devs = append(devs, disk.Dev())
	}
	s.table = dm.ThinPool{Metadata: devs[0], Data: devs[1], BlockSize: dm.MinBlockSize, ErrorIfNoSpace: true}
	device, err := dm.Activate(s.kernel, "demo-pool", "", dm.Whole(smallPool, s.table))
	if err != nil {
		return err
	}
	s.pool = dm.Pool{Device: device}
	s.later(device.Remove)
	s.belowVolumes = len(s.undo)
	info, err := device.Info()
	s.dev = info.Dev
	return err
}

func volumeName(id dm.DeviceID) string { return fmt.Sprintf("demo-volume-%d", id) }

func (s *stage) mountPoint(id dm.DeviceID) string { return filepath.Join(s.dir, volumeName(id)) }

// activate makes a block device of a thin.
func (s *stage) activate(id dm.DeviceID) (dm.Info, error) {
	device, err := dm.Activate(s.kernel, volumeName(id), "", dm.Whole(volume, dm.Thin{Pool: s.dev, ID: id}))
	if err != nil {
		return dm.Info{}, err
	}
	s.later(func() error { return errors.Join(device.Remove(), s.pool.Delete(id)) })
	return device.Info()
}

// mount activates a thin and mounts it, formatted before if a type is given.
func (s *stage) mount(id dm.DeviceID, format string) error {
	info, err := s.activate(id)
	if err != nil {
		return err
	}
	if format != "" {
		if err := tool("mkfs."+format, "-q", "-E", "nodiscard,assume_storage_prezeroed=1", info.Node()); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.mountPoint(id), 0o700); err != nil {
		return err
	}
	if err := unix.Mount(info.Node(), s.mountPoint(id), "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	s.later(func() error { return unix.Unmount(s.mountPoint(id), 0) })
	return nil
}

func content(name string, size int) []byte {
	return bytes.Repeat([]byte(name+"\n"), size/(len(name)+1))
}

func (s *stage) write(name string, size int) error {
	f, err := os.Create(filepath.Join(s.mountPoint(1), name))
	if err != nil {
		return err
	}
	_, err = f.Write(content(name, size))
	return errors.Join(err, f.Sync(), f.Close())
}

// snapshotUnderLoad suspends the volume for the one message only.
func (s *stage) snapshotUnderLoad() error {
	wrote := make(chan error)
	go func() { wrote <- s.write("second", 8<<20) }()
	time.Sleep(5 * time.Millisecond)
	err := dm.ByName(s.kernel, volumeName(1)).WhileSuspended(0, func() error { return s.pool.CreateSnap(2, 1) })
	return errors.Join(err, <-wrote)
}

func (s *stage) readSnapshot() error {
	if err := s.mount(2, ""); err != nil {
		return err
	}
	have, err := os.ReadFile(filepath.Join(s.mountPoint(2), "first"))
	if err == nil && !bytes.Equal(have, content("first", 4<<20)) {
		err = errors.New("the file differs")
	}
	return err
}

// fillPool writes until there is no space, on a volume without a file system: one
// with a journal might not survive it.
func (s *stage) fillPool() error {
	if err := s.pool.CreateThin(3); err != nil {
		return err
	}
	info, err := s.activate(3)
	if err != nil {
		return err
	}
	f, err := s.machine.Open(info)
	if err != nil {
		return err
	}
	chunk := content("filler", 1<<20)[:1<<20-dm.SectorSize]
	for at := int64(0); err == nil; at += 1 << 20 {
		_, err = f.WriteAt(chunk, at)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func (s *stage) grow() error {
	return s.pool.Swap(dm.Whole(largePool, s.table), dm.SkipLockFS|dm.NoFlush)
}
