package deviceset_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// onOwnDisk puts the root on a file system of its own, on a disk that can fail.
func (l *kernelLab) onOwnDisk() (disk *flakey, at string) {
	l.Helper()
	disk, at = l.flakey(64*mib), l.directory("disk")
	l.tool("mkfs.ext4", "-q", disk.path)
	l.must(unix.Mount(disk.path, at, "ext4", 0, ""))
	l.Cleanup(func() { _ = unix.Unmount(at, 0) })
	l.root = at + "/root"
	return disk, at
}

// fillUp leaves no byte free on the file system at a path.
func (l *kernelLab) fillUp(at string) {
	l.Helper()
	f, err := os.Create(at + "/filler")
	l.must(err)
	defer f.Close()
	for size := int(mib); size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		l.refused(err, unix.ENOSPC)
	}
	l.refused(os.WriteFile(at+"/one-more", make([]byte, 4096), 0o600), unix.ENOSPC)
	_ = os.Remove(at + "/one-more")
	l.must(f.Sync())
}

// A root without a free byte is no hindrance: all that is written later has its place
// already. It takes more than a slot of the journal holds.
func TestKernelRootFull(t *testing.T) {
	l := newKernelLab(t)
	_, at := l.onOwnDisk()
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.fillUp(at)
	for range 700 {
		l.must(s.CreateDevice("b", "", newBlank))
		l.must(s.DeleteDevice("b", true))
	}
	l.must(s.AddDevice("c", "a", nil))
	l.must(s.GrowDevice("a", 16*mib))
	l.must(s.SetLabels("a", map[string]string{"key": "value"}))

	l.must(s.Shutdown(l.root))
	s = l.open(options...)
	l.equal(s.List(), []string{"a", "c"})
	l.holds(s, "c", 1)
	l.must(s.DeleteDevice("c", true))
	l.must(s.CreateDevice("d", "", newBlank))
	l.equal(len(l.thins(s)), 3)
}

// A root that is full when the pool is to be made leaves no trace of an attempt that
// would be in the way of the next.
func TestKernelRootFullAtFirst(t *testing.T) {
	l := newKernelLab(t)
	_, at := l.onOwnDisk()
	data, metadata, options := l.onDisks(256*mib, 16*mib)
	l.fillUp(at)
	before := []string{l.sum(data.path), l.sum(metadata.path)}
	l.notOpened(unix.ENOSPC, options...)
	l.equal([]string{l.sum(data.path), l.sum(metadata.path)}, before)
	l.must(os.Remove(at + "/filler"))
	s := l.open(options...)
	l.must(s.CreateDevice("a", "", newBlank))
}

// After an error of the root's disk nothing more is changed, even when the disk works
// again: what was not synced is not known. A new start reads it anew.
func TestKernelRootFails(t *testing.T) {
	for _, test := range []struct {
		name     string
		features []string
	}{
		{"all I/O", nil},
		{"writes", []string{dmtest.ErrorWrites}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newKernelLab(t)
			disk, at := l.onOwnDisk()
			_, _, options := l.onDisks(256*mib, 16*mib)
			s := l.open(options...)
			l.blank(s, "a", 8*mib)
			l.put(s, "a", 1)
			l.blank(s, "b", 8*mib)

			disk.fails(test.features...)
			unavailable := func() {
				t.Helper()
				l.isUnavailable(s, "a")
				l.refused(s.DeleteDevice("b", true), deviceset.ErrUnavailable)
				l.refused(s.GrowDevice("a", 16*mib), deviceset.ErrUnavailable)
				l.refused(s.SetLabels("a", map[string]string{"key": "value"}), deviceset.ErrUnavailable)
				l.equal(s.List(), []string{"a", "b"})
				l.holds(s, "a", 1)
			}
			unavailable()
			disk.works()
			unavailable()
			l.equal(len(l.thins(s)), 3) // the pool has heard nothing of it
			if err := s.Shutdown(l.root); err != nil {
				t.Log(err)
			}

			l.must(unix.Unmount(at, 0))
			l.must(unix.Mount(disk.path, at, "ext4", 0, ""))
			s = l.open(options...)
			l.equal(s.Status().ReadOnly, "")
			l.holds(s, "a", 1)
			if list := s.List(); len(list) == 1 { // the last record got there after all
				l.equal(list, []string{"a"})
				l.waitIdle(s)
			} else {
				l.equal(list, []string{"a", "b"})
			}
			l.must(s.CreateDevice("c", "", newBlank))
			l.equal(len(l.thins(s)), len(s.List())+1)
		})
	}
}

// A root that is mounted read-only is not opened half.
func TestKernelRootReadOnly(t *testing.T) {
	l := newKernelLab(t)
	_, at := l.onOwnDisk()
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))
	l.must(unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s, err := deviceset.NewDeviceSet(l.root, true, options, nil, nil)
	if err == nil {
		l.shutAtEnd(s)
		l.isUnavailable(s, "a")
		l.must(s.Shutdown(l.root))
	} else if !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	l.must(unix.Mount("", at, "", unix.MS_REMOUNT, ""))
	l.holds(l.open(options...), "a", 1)
}
