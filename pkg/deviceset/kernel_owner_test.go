package deviceset_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A root has one process.
func TestKernelOneProcess(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	r := l.raw(s, "a")
	l.notOpened(deviceset.ErrInUse, options...)
	_, err := deviceset.Adopt(l.root, options, true)
	l.refused(err, deviceset.ErrInUse)
	l.must(s.CreateDevice("b", "", newBlank))
	r.want(1, 0, 4*block)
	r.close()
	l.must(s.DeactivateDevice("a"))
}

// copyRoot makes the lab's root a copy of what it is.
func (l *kernelLab) copyRoot() (original string) {
	l.Helper()
	original = l.root
	l.root = filepath.Join(l.dir, l.name("root"))
	l.must(os.Mkdir(l.root, 0o700))
	for _, file := range []string{"state.0", "state.1"} {
		l.tool("cp", "-a", filepath.Join(original, file), l.root)
	}
	return original
}

// stall suspends the pool, as a growth does for a moment, and reads from a device
// meanwhile.
func stall(j job) error {
	s, err := deviceset.NewDeviceSet(j.Root, true, j.Options, nil, nil)
	if err != nil {
		return err
	}
	path, err := s.ActivateDevice("a")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	control, err := dm.Open()
	if err != nil {
		return err
	}
	if err := dm.ByName(control, s.Status().PoolName).Suspend(dm.SkipLockFS | dm.NoFlush); err != nil {
		return err
	}
	fmt.Println("stalled")
	_, err = dm.WithAligned(int(block), func(b []byte) (int, error) { return f.ReadAt(b, 0) })
	return err
}

// A process that is killed in the midst of a growth, with I/O waiting for the pool,
// cannot die and keeps the root. The next start resumes the pool, and gets the root.
func TestKernelKilledWhileThePoolIsSuspended(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))

	c, pipe := l.start(job{What: "stall", Root: l.root, Options: options})
	line, err := bufio.NewReader(pipe).ReadString('\n')
	l.must(err)
	l.equal(line, "stalled\n")
	time.Sleep(50 * time.Millisecond) // until the read waits
	l.must(c.Process.Kill())
	time.Sleep(50 * time.Millisecond)
	host, err := deviceset.ThisMachine()
	l.must(err)
	_, err = host.Lock(l.root)
	l.refused(err, deviceset.ErrInUse) // else this proves nothing

	s = l.open(options...)
	_ = c.Wait() // it was killed
	l.must(host.Close())
	l.holds(s, "a", 1)
	l.must(s.CreateDevice("b", "a", deviceset.DeviceOptions{}))
	l.must(s.DeactivateDevice("a"))
	l.runs()
}

// A pool has one root. A copy of the root is refused while the original is in use, and
// is out of date afterwards: then it shows what it has in common with the pool, and
// changes nothing.
func TestKernelOneRoot(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(512*mib, 16*mib)
	first := l.open(options...)
	l.blank(first, "gone", 8*mib)
	l.blank(first, "a", 64*mib)
	l.must(first.FormatDevice("a", filesystem.Ext4, nil))
	path := l.mount(first, "a")
	l.write(path+"/file", "text")
	l.unmount(first, "a", path)
	original := l.copyRoot()
	for range 2 {
		l.notOpened(deviceset.ErrInUse, options...)
		l.runs()
	}
	// What the owner has suspended is not resumed under its hands.
	_, err := first.ActivateDevice("a")
	l.must(err)
	l.must(l.thin(first, "a").Suspend(0))
	l.notOpened(deviceset.ErrInUse, options...)
	info, err := l.thin(first, "a").Info()
	l.must(err)
	l.equal(info.Suspended(), true)
	l.must(l.thin(first, "a").Resume())
	l.must(first.DeactivateDevice("a"))
	l.blank(first, "b", 8*mib)
	l.put(first, "b", 2)
	l.must(first.DeleteDevice("gone", true))
	l.must(first.Shutdown(original))

	s := l.open(options...)
	if s.Status().ReadOnly == "" {
		t.Error("the copy is taken for up to date")
	}
	l.equal(s.List(), []string{"a", "gone"})
	l.refused(s.CreateDevice("c", "", newBlank), deviceset.ErrReadOnly)
	l.refused(s.AddDevice("c", "a", nil), deviceset.ErrReadOnly)
	l.refused(s.DeleteDevice("a", true), deviceset.ErrReadOnly)
	l.refused(s.GrowDevice("a", 128*mib), deviceset.ErrReadOnly)
	_, err = s.ActivateDevice("gone")
	l.refused(err, deviceset.ErrLost)
	path = l.mount(s, "a")
	l.reads(path+"/file", "text")
	l.unmount(s, "a", path)
	l.must(s.Shutdown(l.root))

	l.root = original
	s = l.open(options...)
	l.equal(s.Status().ReadOnly, "")
	l.equal(s.List(), []string{"a", "b"})
	l.holds(s, "b", 2)
	l.must(s.CreateDevice("c", "", newBlank))
}

// An id that was given out again since a copy of the root was made is not mistaken for
// what it was then.
func TestKernelOneRootAndIDs(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	d, err := s.Device("a")
	l.must(err)
	l.must(s.Shutdown(l.root))
	original := l.copyRoot()

	l.root, original = original, l.root
	s = l.open(options...)
	l.must(s.DeleteDevice("a", true))
	pool := l.pool(s)
	l.must(pool.CreateThin(d.ID)) // as after 2^24 others
	l.must(s.Shutdown(l.root))

	l.root = original
	s = l.open(options...)
	_, err = s.ActivateDevice("a")
	l.refused(err, deviceset.ErrQuarantined)
	l.equal(s.Status().Quarantined, []dm.DeviceID{d.ID})
}
