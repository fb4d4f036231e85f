package deviceset_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A writer makes one file after the other in a directory and syncs each, until it is
// stopped. Whatever it has counted must be found, and nothing else may be half there.
type writer struct {
	lab  *kernelLab
	path string
	stop func()
	done sync.WaitGroup
	kept atomic.Int64 // files that are durable
}

func (l *kernelLab) writer(path string) *writer {
	w := &writer{lab: l, path: path}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	l.Cleanup(w.end)
	w.done.Go(func() {
		for ctx.Err() == nil {
			if err := w.file(w.kept.Load()); err != nil {
				l.Errorf("write while mounted: %v", err)
				return
			}
			w.kept.Add(1)
			time.Sleep(5 * time.Millisecond) // all of them are looked at later
		}
	})
	return w
}

func (w *writer) file(n int64) error {
	f, err := os.Create(filepath.Join(w.path, fmt.Sprint(n)))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(pattern(uint64(n), 4096)); err != nil {
		return err
	}
	return f.Sync()
}

func (w *writer) end() {
	w.stop()
	w.done.Wait()
}

// waitForMore waits until the writer has written a few files more.
func (w *writer) waitForMore() {
	w.lab.Helper()
	begin := w.kept.Load()
	w.lab.waitFor("the writer", func() bool { return w.kept.Load() > begin+3 || w.lab.Failed() })
}

// has fails unless the first n files of a writer are in a directory.
func (l *kernelLab) has(path string, n int64) {
	l.Helper()
	for i := range n {
		have, err := os.ReadFile(filepath.Join(path, fmt.Sprint(i)))
		l.must(err)
		if string(have) != string(pattern(uint64(i), 4096)) {
			l.Fatalf("file %d of %d in %s is not what was written", i, n, path)
		}
	}
}

// clean fails unless the file system of a device that is not mounted is without fault.
func (l *kernelLab) clean(s *deviceset.DeviceSet, name string, fs filesystem.Type) {
	l.Helper()
	path, err := s.ActivateDevice(name)
	l.must(err)
	if fs == filesystem.Ext4 {
		l.tool("e2fsck", "-f", "-n", path)
	} else {
		l.tool("xfs_repair", "-n", path)
	}
	l.must(s.DeactivateDevice(name))
}

// Snapshots of a device that is being written to have all that was synced before,
// and are file systems without fault. All of them can be mounted at once.
func TestKernelSnapshotsOfWhatIsWritten(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		w := l.writer(path)
		kept := map[string]int64{}
		for i := range 4 {
			name := fmt.Sprintf("snapshot-%d", i)
			w.waitForMore()
			kept[name] = w.kept.Load()
			l.must(s.AddDevice(name, "a", map[string]string{"readonly": "true"}))
			kept["clone-1-"+name], kept["clone-2-"+name] = kept[name], kept[name]
		}
		w.end()
		for i := range 4 {
			name := fmt.Sprintf("snapshot-%d", i)
			l.must(s.AddDevice("clone-1-"+name, name, nil))
			l.must(s.AddDevice("clone-2-"+name, name, nil))
			if fs == filesystem.Ext4 {
				l.clean(s, name, fs)
			} else {
				delete(kept, name) // it has a log to replay
			}
		}
		paths := map[string]string{}
		for name, n := range kept {
			paths[name] = l.mount(s, name)
			l.has(paths[name], n)
		}
		l.write(paths["clone-1-snapshot-0"]+"/0", "changed")
		l.has(paths["clone-2-snapshot-0"], kept["clone-2-snapshot-0"])
		l.has(path, w.kept.Load())
		for name, path := range paths {
			l.unmount(s, name, path)
			if d, err := s.Device(name); err == nil && !d.ReadOnly {
				l.clean(s, name, fs)
			}
		}
		l.unmount(s, "a", path)
		l.clean(s, "a", fs)
	})
}

// What is mounted outlives the process, and goes on under the next one.
func TestKernelMountOutlivesTheProcess(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		options := []string{"dm.datadev=" + s.DataDevicePath(), "dm.metadatadev=" + s.MetadataDevicePath()}
		l.must(s.Shutdown(l.root))

		s, p := l.process(options...)
		path := l.mount(s, "a")
		w := l.writer(path)
		w.waitForMore()
		for round := range 3 {
			if round == 1 {
				l.must(s.Shutdown(l.root)) // as orderly as can be
			} else {
				p.die(s)
			}
			w.waitForMore()
			s, p = l.process(options...)
			w.waitForMore()
			l.must(s.MountDevice("a", path, deviceset.MountOpts{}))
			l.equal(l.mounts(path), 1)
			kept := w.kept.Load()
			name := fmt.Sprint("copy-", round)
			l.must(s.AddDevice(name, "a", nil))
			l.must(s.GrowDevice("a", int64(round+5)*128*mib))
			l.must(s.GrowFilesystem(context.Background(), "a"))
			copied := l.mount(s, name)
			l.has(copied, kept)
			l.unmount(s, name, copied)
		}
		w.end()
		l.has(path, w.kept.Load())
		l.unmount(s, "a", path)
		l.equal(l.isActive(s, "a"), false)
		l.clean(s, "a", fs)
	})
}

// A mounted file system grows while it is written to.
func TestKernelGrowWhileWritten(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		w := l.writer(path)
		for _, size := range []int64{512 * mib, 1024 * mib} {
			w.waitForMore()
			l.must(s.GrowDevice("a", size))
			w.waitForMore()
			l.must(s.GrowFilesystem(context.Background(), "a"))
			w.waitForMore()
			l.isAbout(path, size)
			l.must(s.GrowDevice("a", size)) // again
			l.must(s.GrowFilesystem(context.Background(), "a"))
		}
		l.refused(s.GrowDevice("a", 512*mib), deviceset.ErrTooSmall)
		w.end()
		l.has(path, w.kept.Load())
		l.unmount(s, "a", path)
		l.clean(s, "a", fs)
		status, err := s.GetDeviceStatus("a")
		l.must(err)
		l.equal(status.Size, uint64(1024*mib))
	})
}

// isAbout fails unless a file system has nearly so many bytes.
func (l *kernelLab) isAbout(path string, size int64) {
	l.Helper()
	var st unix.Statfs_t
	l.must(unix.Statfs(path, &st))
	const overhead = 96 * mib // such as the log
	if have := int64(st.Blocks) * st.Bsize; have < size-overhead || have > size {
		l.Fatalf("the file system has %d bytes of %d", have, size)
	}
}

// The file system of a larger copy is as large as the copy once it is mounted, and
// so is that of a device that grew while it was not mounted.
func TestKernelGrowAtMount(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		l.write(path+"/file", "text")
		l.must(s.AddDevice("b", "a", map[string]string{"size": "1G"}))
		l.refused(s.AddDevice("c", "a", map[string]string{"size": "32M"}), deviceset.ErrTooSmall)
		l.unmount(s, "a", path)
		l.must(s.GrowDevice("a", 640*mib))

		for name, size := range map[string]int64{"b": 1024 * mib, "a": 640 * mib} {
			path = l.mount(s, name, "ro") // which is no occasion
			l.reads(path+"/file", "text")
			l.unmount(s, name, path)
			path = l.mount(s, name)
			l.isAbout(path, size)
			l.reads(path+"/file", "text")
			l.unmount(s, name, path)
			l.clean(s, name, fs)
		}
	})
}

// A device is formatted once, and never where something is.
func TestKernelFormat(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		l.blank(s, "a", 512*mib)
		l.must(s.FormatDevice("a", fs, nil))
		l.equal(l.isActive(s, "a"), false)
		path := l.mount(s, "a")
		l.write(path+"/file", "text")
		l.must(s.FormatDevice("a", fs, nil))
		l.reads(path+"/file", "text")
		l.unmount(s, "a", path)

		l.blank(s, "b", 512*mib)
		l.put(s, "b", 1)
		l.refused(s.FormatDevice("b", fs, nil), deviceset.ErrForeign)
		l.holds(s, "b", 1)
		l.must(s.AddDevice("c", "b", nil))
		l.refused(s.FormatDevice("c", fs, nil), deviceset.ErrInvalid)
		l.holds(s, "c", 1)
	})
}
