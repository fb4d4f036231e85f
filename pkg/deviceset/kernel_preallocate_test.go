package deviceset_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

var ahead = []string{
	"dm.loopdatasize=256M", "dm.loopmetadatasize=16M", "dm.preallocate=true",
	"dm.min_free_space=0%", "dm.overprovision_ratio=0",
}

// rootOn mounts a file system of that size at the lab's root.
func (l *kernelLab) rootOn(fs string, size int64) {
	l.Helper()
	l.must(os.Mkdir(l.root, 0o700))
	l.Cleanup(func() { l.must(unix.Unmount(l.root, 0)) })
	if fs == "tmpfs" {
		l.tool("mount", "-t", "tmpfs", "-o", "size="+sizeText(size), "tmpfs", l.root)
		return
	}
	image := filepath.Join(l.dir, "image")
	f, err := os.Create(image)
	l.must(err)
	l.must(f.Truncate(size))
	l.must(f.Close())
	l.tool("mkfs."+fs, "-q", map[string]string{"ext4": "-F", "xfs": "-f"}[fs], image)
	l.tool("mount", "-o", "loop", image, l.root)
}

// fillRoot takes what the lab's root has free, until the file is removed.
func (l *kernelLab) fillRoot() (path string) {
	l.Helper()
	path = filepath.Join(l.root, "filler")
	f, err := os.Create(path)
	l.must(err)
	defer f.Close()
	zeros := make([]byte, mib)
	for err == nil {
		_, err = f.Write(zeros)
	}
	l.refused(err, unix.ENOSPC)
	return path
}

func (l *kernelLab) wholeFile(want int64) {
	l.Helper()
	data, _ := l.files()
	if size, taken := l.allocated(data); size != want || taken < size {
		l.Fatalf("the data file has %d bytes, want %d, and takes %d", size, want, taken)
	}
}

// A pool that is allocated ahead takes all that it has to give, though the file system
// below it is full, and gives none of it back.
func TestKernelPreallocate(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) {
			l := newKernelLab(t)
			l.rootOn(fs, 640*mib)
			s := l.open(ahead...)
			l.wholeFile(256 * mib)
			filler := l.fillRoot()
			st := s.Status()
			l.equal(st.Data.Available, st.Data.Total-st.Data.Used)
			l.equal(len(st.Warnings), 0)

			l.blank(s, "a", 512*mib)
			r := l.raw(s, "a")
			n := int64(0)
			for ; r.tryWrite(uint64(n), n*block, 4096) == nil; n++ { // the pool zeroes the rest of each block
			}
			l.equal(n*block, int64(st.Data.Available))
			l.wholeFile(256 * mib)
			r.close()
			l.tool("blkdiscard", "-l", "128M", l.activated(s, "a"))
			l.wholeFile(256 * mib)
			l.must(s.DeactivateDevice("a"))
			l.must(s.DeleteDevice("a", false))
			l.wholeFile(256 * mib)
			l.blank(s, "b", 64*mib)
			l.put(s, "b", 1)

			l.refused(s.ResizePool(320*mib), deviceset.ErrNoSpace)
			l.wholeFile(256 * mib)
			l.must(os.Remove(filler))
			l.must(s.ResizePool(320 * mib))
			l.wholeFile(320 * mib)
			l.equal(s.Status().Data.Total, uint64(320*mib))
			l.must(s.Shutdown(l.root))

			l.fillRoot()
			s = l.open(ahead...) // it has all of it
			l.equal(len(s.Status().Warnings), 0)
			l.holds(s, "b", 1)
			l.must(s.Shutdown(l.root))
		})
	}
}

func (l *kernelLab) activated(s *deviceset.DeviceSet, name string) string {
	l.Helper()
	path, err := s.ActivateDevice(name)
	l.must(err)
	return path
}

// A file system that would be left with too little keeps it.
func TestKernelPreallocateIsRefused(t *testing.T) {
	l := newKernelLab(t)
	l.rootOn("ext4", 320*mib)
	l.notOpened(deviceset.ErrNoSpace, ahead...)
	data, _ := l.files()
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Fatalf("the data file: %v", err)
	}
	sparse := slices.Concat(ahead, []string{"dm.preallocate=false"})
	s := l.open(sparse...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))
	s = l.open(ahead...)
	l.equal(len(s.Status().Warnings), 1)
	if size, taken := l.allocated(data); taken >= size {
		t.Errorf("%d of %d bytes are allocated", taken, size)
	}
	l.holds(s, "a", 1)
}

// Killed at any step of a growth, the pool has its old size or its new one at the next
// start, and its file has all of either.
func TestKernelPreallocatedResizeIsKilled(t *testing.T) {
	l := newKernelLab(t)
	l.rootOn("xfs", 640*mib)
	size := 64 * mib
	options := slices.Concat(ahead, []string{"dm.loopdatasize=64M"})
	s, p := l.process(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	r := l.raw(s, "a") // keeps the pool
	at := 0
	for ; ; at++ {
		plan := &dmfault.Plan{At: at, Mode: dmfault.CrashAfter}
		p.breakWith(plan)
		_ = s.ResizePool(size + 8*mib)
		p.breakWith(nil)
		if plan.Hit() == "" {
			break
		}
		p.die(s)
		s, p = l.process(options...)
		st := s.Status()
		if st.Data.Total != uint64(size) && st.Data.Total != uint64(size+8*mib) || len(st.Warnings) > 0 {
			t.Fatalf("killed after %s: %+v", plan.Hit(), st)
		}
		l.runs()
		r.want(1, 0, 4*block)
		l.must(s.ResizePool(size + 8*mib))
		size += 8 * mib
		l.wholeFile(size)
		l.equal(s.Status().Data.Total, uint64(size))
	}
	t.Logf("%d steps", at)
	r.close()
	l.must(s.DeactivateDevice("a"))
	l.must(s.Shutdown(l.root))
}

func sizeText(bytes int64) string { return fmt.Sprintf("%dM", bytes/mib) }
