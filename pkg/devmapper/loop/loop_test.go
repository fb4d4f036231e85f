package loop_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// backing returns the path of a new file, and has the test fail if a loop device
// of it is left.
func backing(t *testing.T, size int64) string {
	t.Helper()
	dmtest.CheckLeftovers(t, dmtest.RealMachine(t))
	path := filepath.Join(t.TempDir(), "backing")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	return path
}

func attach(t *testing.T, path string, o loop.Options) *loop.Device {
	t.Helper()
	d, err := loop.Attach(path, o)
	must(t, err)
	return d
}

func detach(t *testing.T, d *loop.Device) {
	t.Helper()
	must(t, errors.Join(d.Detach(), d.Close()))
}

func sizeOf(t *testing.T, d *loop.Device) int64 {
	t.Helper()
	size, err := d.Seek(0, 2)
	must(t, err)
	return size
}

func TestKernelAttachFindDetach(t *testing.T) {
	path := backing(t, 1<<20)
	found, err := loop.Find(path)
	must(t, err)
	if len(found) != 0 {
		t.Fatalf("a new file has %d loop devices", len(found))
	}
	d := attach(t, path, loop.Options{})
	status, err := d.Status()
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if status.Inode != st.Ino || uint64(status.BackingFS) != st.Dev || status.Autoclear || status.ReadOnly {
		t.Errorf("status is %+v", status)
	}
	moved := path + "-moved"
	must(t, os.Rename(path, moved))
	found, err = loop.Find(moved)
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("found %d loop devices by the file's new name", len(found))
	}
	again, err := found[0].Status()
	must(t, err)
	if again != status {
		t.Errorf("found %+v, want %+v", again, status)
	}
	must(t, found[0].Close())
	detach(t, d)
}

func TestKernelFileIsReadAndWritten(t *testing.T) {
	path := backing(t, 1<<20)
	d := attach(t, path, loop.Options{})
	_, err := d.WriteAt([]byte("hello"), 4096)
	must(t, err)
	must(t, d.Sync())
	content, err := os.ReadFile(path)
	must(t, err)
	if string(content[4096:4101]) != "hello" {
		t.Error("what was written to the device is not in the file")
	}
	detach(t, d)
}

func TestKernelCapacity(t *testing.T) {
	path := backing(t, 1<<20)
	d := attach(t, path, loop.Options{})
	must(t, os.Truncate(path, 3<<20))
	if size := sizeOf(t, d); size != 1<<20 {
		t.Errorf("device has %d bytes before it was told", size)
	}
	must(t, d.UpdateCapacity())
	if size := sizeOf(t, d); size != 3<<20 {
		t.Errorf("device has %d bytes", size)
	}
	detach(t, d)
}

func TestKernelAutoclear(t *testing.T) {
	path := backing(t, 1<<20)
	d := attach(t, path, loop.Options{Autoclear: true})
	status, err := d.Status()
	must(t, err)
	if !status.Autoclear {
		t.Errorf("status is %+v", status)
	}
	must(t, d.Close())
	found, err := loop.Find(path)
	must(t, err)
	if len(found) != 0 {
		t.Error("the device outlived its last user")
		detach(t, found[0])
	}
}

func TestKernelReadOnly(t *testing.T) {
	path := backing(t, 1<<20)
	d := attach(t, path, loop.Options{ReadOnly: true})
	status, err := d.Status()
	must(t, err)
	if !status.ReadOnly {
		t.Errorf("status is %+v", status)
	}
	detach(t, d)
}

// tmpfs has no direct I/O on this kernel, so the file lies on a real disk.
func TestKernelDirectIO(t *testing.T) {
	disk := backing(t, 64<<20)
	below := attach(t, disk, loop.Options{})
	mountPoint := t.TempDir()
	dmtest.Mkfs(t, "ext4", below.Name())
	must(t, unix.Mount(below.Name(), mountPoint, "ext4", 0, ""))
	path := filepath.Join(mountPoint, "backing")
	must(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	d := attach(t, path, loop.Options{BlockSize: 4096})
	status, err := d.Status()
	must(t, err)
	if !status.DirectIO {
		t.Errorf("status is %+v", status)
	}
	if size, err := unix.IoctlGetInt(int(d.Fd()), unix.BLKSSZGET); err != nil || size != 4096 {
		t.Errorf("logical block size is %d, error %v", size, err)
	}
	detach(t, d)
	must(t, unix.Unmount(mountPoint, 0))
	detach(t, below)
}

func TestKernelAttachRefuses(t *testing.T) {
	path := backing(t, 1<<20)
	if _, err := loop.Attach(path+"-missing", loop.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: error is %v", err)
	}
	if _, err := loop.Attach(path, loop.Options{BlockSize: 1000}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("odd block size: error is %v", err)
	}
	if _, err := loop.Attach(t.TempDir(), loop.Options{}); err == nil {
		t.Error("a directory was attached")
	}
}

func TestKernelStatusOfAFreeDevice(t *testing.T) {
	path := backing(t, 1<<20)
	d := attach(t, path, loop.Options{})
	must(t, d.Detach())
	_ = d.File.Sync()
	name := d.Name()
	must(t, d.Close())
	f, err := os.Open(name)
	must(t, err)
	if _, err := (&loop.Device{File: f}).Status(); !errors.Is(err, unix.ENXIO) {
		t.Errorf("error is %v", err)
	}
	must(t, f.Close())
}
