package deviceset_test

import (
	"os"
	"path/filepath"
	"testing"

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
