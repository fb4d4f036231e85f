package dmtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

// RequireKernel ends a test that cannot have this machine's own device-mapper
// with thin provisioning: it fails where somebody has asked for kernel tests, in
// CI or in the box, and is skipped elsewhere.
func RequireKernel(t testing.TB) *dm.Control {
	t.Helper()
	k, err := dm.Open()
	if err == nil {
		t.Cleanup(func() { _ = k.Close() })
		_, err = dm.GetTarget(k, dm.ThinPool{}.TargetType())
	}
	switch {
	case err == nil && os.Getenv("BOX_KERNEL") != "":
		return k
	case err == nil:
		err = errors.New("this machine's own kernel is used only through BOX=host")
	}
	if os.Getenv("CI")+os.Getenv("BOX_KERNEL") != "" {
		t.Fatalf("no kernel to test on: %v", err)
	}
	t.Skipf("no kernel to test on: %v (make test-kernel)", err)
	return nil
}

// RequireSMP is RequireKernel for tests that mean nothing on a single CPU, as the
// box without BOX=smp has.
func RequireSMP(t testing.TB) *dm.Control {
	t.Helper()
	k := RequireKernel(t)
	if cpus := runtime.NumCPU(); cpus < 2 {
		t.Fatalf("this story needs several CPUs, and the kernel has %d (make test-smp)", cpus)
	}
	return k
}

// RealMachine is the machine that the test runs on. Its disks are loop devices
// over files in memory. It knows the devices of its stories by their names, which
// begin with "dmtest-", so only one test may use it at a time.
func RealMachine(t testing.TB) Machine {
	return NewMachine(RequireKernel(t), memoryDir(t))
}

// NewMachine is RealMachine outside of tests: the files behind its disks go into
// dir, and whoever made them closes the disks.
func NewMachine(k *dm.Control, dir string) Machine { return &realMachine{kernel: k, dir: dir} }

// memoryDir returns a directory on a file system in memory.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "dmtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

type realMachine struct {
	kernel *dm.Control
	dir    string
	disks  []*realDisk
	files  []*file // open, of dm devices
}

func (m *realMachine) Kernel() dm.Watcher { return m.kernel }

func (m *realMachine) NewDisk(size dm.Sectors) (Disk, error) {
	path := filepath.Join(m.dir, fmt.Sprintf("disk%d", len(m.disks)))
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(path, size.Bytes()); err != nil {
		return nil, err
	}
	d, err := loop.Attach(path, loop.Options{})
	if err != nil {
		return nil, err
	}
	status, err := d.Status()
	if err != nil {
		return nil, errors.Join(err, d.Detach(), d.Close())
	}
	disk := &realDisk{loop: d, status: status, path: path}
	m.disks = append(m.disks, disk)
	return disk, nil
}

func (m *realMachine) Open(i dm.Info) (File, error) { return m.open(i, 0) }

func (m *realMachine) OpenExclusive(i dm.Info) (File, error) { return m.open(i, unix.O_EXCL) }

func (m *realMachine) open(i dm.Info, flags int) (File, error) {
	f, err := dm.OpenNode(i, os.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC|flags)
	if err != nil {
		return nil, err
	}
	opened := &file{File: f}
	m.files = append(m.files, opened)
	return opened, nil
}

// PowerCut keeps the disks as they are now, takes the devices down in order,
// which may write to them, and then puts the disks back to what they were.
func (m *realMachine) PowerCut() error {
	images := make([][]byte, len(m.disks))
	for i, d := range m.disks {
		var err error
		if images[i], err = os.ReadFile(d.path); err != nil {
			return err
		}
	}
	for _, f := range m.files {
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := m.removeAll(); err != nil {
		return err
	}
	for i, d := range m.disks {
		if err := os.WriteFile(d.path, images[i], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes the devices of stories, those above others first.
func (m *realMachine) removeAll() error {
	for {
		devices, err := dm.List(m.kernel, "dmtest-", "")
		if err != nil || len(devices) == 0 {
			return err
		}
		var errs []error
		for _, d := range devices {
			errs = append(errs, dm.ByName(m.kernel, d.Name).Remove())
		}
		if err := errors.Join(errs...); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
}

func (m *realMachine) Leftovers() ([]string, error) { return Leftovers(m.kernel) }

// Leftovers names the dm devices, attached loop devices and mounts of this
// machine.
func Leftovers(k dm.Kernel) ([]string, error) {
	names, err := DevicesAndLoops(k)
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(strings.TrimSpace(string(mounts)), "\n") {
		names = append(names, "mount "+line)
	}
	return names, err
}

// DevicesAndLoops names the dm devices and attached loop devices of this machine.
func DevicesAndLoops(k dm.Kernel) (names []string, err error) {
	devices, err := dm.List(k, "", "")
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		names = append(names, "device "+d.Name)
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		names = append(names, "loop device "+strings.Split(l, "/")[3])
	}
	return names, err
}

type realDisk struct {
	loop   *loop.Device
	status loop.Status
	path   string
}

func (d *realDisk) Dev() dm.DevNo { return d.status.Dev }

func (d *realDisk) Open() (File, error) {
	f, err := os.OpenFile(d.loop.Name(), os.O_RDWR|unix.O_DIRECT, 0)
	return &file{File: f}, err
}

func (d *realDisk) Grow(size dm.Sectors) error {
	return errors.Join(os.Truncate(d.path, size.Bytes()), d.loop.UpdateCapacity())
}

// Flushes reads the disk's count of completed flushes
// (Documentation/block/stat.rst: the 16th field, since Linux 5.5).
func (d *realDisk) Flushes() (flushes int, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/stat", d.status.Dev))
	if fields := strings.Fields(string(stat)); err == nil && len(fields) > 15 {
		_, err = fmt.Sscan(fields[15], &flushes)
	}
	return flushes, err
}

func (d *realDisk) Close() error { return errors.Join(d.loop.Detach(), d.loop.Close()) }

// A file does direct I/O, for which the kernel wants buffers that are aligned.
type file struct {
	*os.File
	closed bool
}

// Close closes the file; again is no error.
func (f *file) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.File.Close()
}

func (f *file) ReadAt(b []byte, at int64) (int, error) {
	return dm.WithAligned(len(b), func(buffer []byte) (int, error) {
		n, err := f.File.ReadAt(buffer, at)
		copy(b, buffer[:n])
		return n, err
	})
}

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	return dm.WithAligned(len(b), func(buffer []byte) (int, error) {
		copy(buffer, b)
		n, err := f.File.WriteAt(buffer, at)
		if n < len(b) && err == nil {
			err = io.ErrShortWrite
		}
		return n, err
	})
}

func (f *file) Discard(offset, length int64) error { return dm.Discard(f.File, offset, length) }

// Mkfs makes a file system on a device of the machine.
func Mkfs(t testing.TB, fsType, device string) {
	t.Helper()
	if out, err := exec.Command("mkfs."+fsType, device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s %s: %v: %s", fsType, device, err, out)
	}
}
