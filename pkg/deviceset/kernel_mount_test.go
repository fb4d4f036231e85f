package deviceset_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// eachFS tells a story with each file system, on a set whose base device has it.
func eachFS(t *testing.T, story func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type)) {
	dmOptions := map[filesystem.Type][]string{
		filesystem.Ext4: {"dm.fs=ext4", "dm.basesize=64M"},
		filesystem.XFS:  {"dm.fs=xfs", "dm.basesize=300M"},
	}
	for _, fs := range []filesystem.Type{filesystem.Ext4, filesystem.XFS} {
		t.Run(string(fs), func(t *testing.T) {
			l := newKernelLab(t)
			_, _, options := l.onDisks(4096*mib, 16*mib)
			s := l.open(append(options, dmOptions[fs]...)...)
			story(l, s, fs)
		})
	}
}

// mount mounts a device at a new path.
func (l *kernelLab) mount(s *deviceset.DeviceSet, name string, options ...string) (path string) {
	l.Helper()
	path = l.directory(l.name(name))
	l.must(s.MountDevice(name, path, deviceset.MountOpts{Options: options}))
	l.mounted(path, true)
	return path
}

func (l *kernelLab) unmount(s *deviceset.DeviceSet, name, path string) {
	l.Helper()
	l.must(s.UnmountDevice(name, path))
	l.mounted(path, false)
}

func (l *kernelLab) mounted(path string, want bool) {
	l.Helper()
	have, err := deviceset.Mounted(path)
	l.must(err)
	l.equal(have, want)
}

func (l *kernelLab) write(path, text string) {
	l.Helper()
	f, err := os.Create(path)
	l.must(err)
	_, err = f.WriteString(text)
	l.must(err)
	l.must(f.Sync())
	l.must(f.Close())
}

func (l *kernelLab) reads(path, want string) {
	l.Helper()
	have, err := os.ReadFile(path)
	l.must(err)
	l.equal(string(have), want)
}

// mounts counts the mounts of this machine at or below a path.
func (l *kernelLab) mounts(path string) (n int) {
	l.Helper()
	all, err := filesystem.Mounts()
	l.must(err)
	for _, m := range all {
		if strings.HasPrefix(m.Path, path) {
			n++
		}
	}
	return n
}

// A device is active for as long as it is mounted somewhere, and keeps what was
// written.
func TestKernelMount(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, _ filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		l.equal(l.isActive(s, "a"), false)
		path := l.mount(s, "a")
		l.write(path+"/file", "text")
		l.must(s.MountDevice("a", path, deviceset.MountOpts{}))
		l.equal(l.mounts(path), 1)

		other := l.mount(s, "a")
		l.reads(other+"/file", "text")
		l.unmount(s, "a", path)
		l.equal(l.isActive(s, "a"), true)
		l.reads(other+"/file", "text")
		l.must(s.UnmountDevice("a", path))
		l.equal(l.isActive(s, "a"), true)
		l.unmount(s, "a", other)
		l.equal(l.isActive(s, "a"), false)

		l.must(s.UnmountDevice("a", other))
		l.must(s.UnmountDevice("a", l.dir+"/nowhere"))
		l.refused(s.UnmountDevice("b", other), deviceset.ErrNotFound)
		path = l.mount(s, "a")
		l.reads(path+"/file", "text")
		l.unmount(s, "a", path)
	})
}

// What somebody else has mounted is neither taken for ours nor taken away.
func TestKernelMountOfOthers(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, _ filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		l.must(s.AddDevice("b", "", nil))
		path := l.directory("taken")
		l.must(unix.Mount("tmpfs", path, "tmpfs", 0, ""))
		l.refused(s.MountDevice("a", path, deviceset.MountOpts{}), deviceset.ErrForeign)
		l.refused(s.UnmountDevice("a", path), deviceset.ErrForeign)
		l.equal(l.isActive(s, "a"), false)
		l.mounted(path, true)
		l.must(unix.Unmount(path, 0))

		l.must(s.MountDevice("b", path, deviceset.MountOpts{}))
		l.refused(s.MountDevice("a", path, deviceset.MountOpts{}), deviceset.ErrForeign)
		l.refused(s.UnmountDevice("a", path), deviceset.ErrForeign)
		l.mounted(path, true)
		l.unmount(s, "b", path)
	})
}

// A mount that fails leaves the device as active as it was.
func TestKernelMountFails(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, _ filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.directory("path")
		wrong := deviceset.MountOpts{Options: []string{"no_such_option"}}
		l.refused(s.MountDevice("a", path, wrong), unix.EINVAL)
		l.refused(s.MountDevice("a", l.dir+"/nowhere", deviceset.MountOpts{}), os.ErrNotExist)
		l.equal(l.isActive(s, "a"), false)

		_, err := s.ActivateDevice("a")
		l.must(err)
		l.refused(s.MountDevice("a", path, wrong), unix.EINVAL)
		l.equal(l.isActive(s, "a"), true)
		l.must(s.DeactivateDevice("a"))

		l.blank(s, "b", 64*mib)
		l.refused(s.MountDevice("b", path, deviceset.MountOpts{}), deviceset.ErrNotFormatted)
		l.equal(l.isActive(s, "b"), false)
	})
}

// Read-only is the mount by its options, or the device by nature.
func TestKernelMountReadOnly(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, _ filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		l.write(path+"/file", "text")
		l.unmount(s, "a", path)
		l.must(s.AddDevice("snapshot", "a", map[string]string{"readonly": "true"}))

		for _, options := range [][]string{{"ro"}, {"noatime,ro"}, {"rw", "ro"}} {
			path = l.mount(s, "a", options...)
			l.must(s.MountDevice("a", path, deviceset.MountOpts{Options: options}))
			l.refused(s.MountDevice("a", path, deviceset.MountOpts{}), deviceset.ErrExists)
			l.reads(path+"/file", "text")
			l.refused(os.WriteFile(path+"/file", nil, 0o600), unix.EROFS)
			l.unmount(s, "a", path)
		}
		path = l.mount(s, "snapshot")
		l.must(s.MountDevice("snapshot", path, deviceset.MountOpts{}))
		l.reads(path+"/file", "text")
		l.refused(os.WriteFile(path+"/file", nil, 0o600), unix.EROFS)
		l.unmount(s, "snapshot", path)
		r := l.openRaw(l.nodeOf(s, "snapshot"))
		l.refused(r.tryWrite(1, 0, 4096), unix.EPERM)
		r.close()
		l.must(s.DeactivateDevice("snapshot"))
	})
}

// nodeOf activates a device.
func (l *kernelLab) nodeOf(s *deviceset.DeviceSet, name string) string {
	l.Helper()
	path, err := s.ActivateDevice(name)
	l.must(err)
	return path
}

// The snapshot of an xfs that is mounted has a log to replay, and nobody writes to a
// read-only device. A copy of it is mounted, read-only or not.
func TestKernelMountReadOnlyOfWhatWasMounted(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		l.write(path+"/file", "text")
		l.must(s.AddDevice("snapshot", "a", map[string]string{"readonly": "true"}))
		l.unmount(s, "a", path)

		path = l.directory("snapshot")
		err := s.MountDevice("snapshot", path, deviceset.MountOpts{})
		if fs == filesystem.XFS {
			l.refused(err, unix.EROFS)
			l.equal(l.isActive(s, "snapshot"), false)
			l.must(s.AddDevice("copy", "snapshot", nil))
			path = l.mount(s, "copy", "ro")
			l.reads(path+"/file", "text")
			l.unmount(s, "copy", path)
			return
		}
		l.must(err)
		l.reads(path+"/file", "text")
		l.unmount(s, "snapshot", path)
	})
}

// An xfs that has no space for its metadata gives up, rather than hold everything up.
func TestKernelMountLimitsRetries(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, fs filesystem.Type) {
		if fs != filesystem.XFS {
			return // there is no such thing
		}
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		info, err := l.thin(s, "a").Info()
		l.must(err)
		for _, class := range []string{"ENOSPC", "EIO"} {
			l.reads("/sys/fs/xfs/"+filepath.Base(info.Node())+"/error/metadata/"+class+"/max_retries", "0\n")
		}
		l.unmount(s, "a", path)
	})
}

// elsewhere starts a process with a copy of all mounts, until it is ended.
func (l *kernelLab) elsewhere() (end func()) {
	l.Helper()
	c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000")
	out, err := c.StdoutPipe()
	l.must(err)
	l.must(c.Start())
	end = func() {
		_ = c.Process.Kill() // or it has ended
		_ = c.Wait()
	}
	l.Cleanup(end)
	_, err = out.Read(make([]byte, 6))
	l.must(err)
	return end
}

// A mount that another namespace has inherited holds nobody up. The device goes when
// that one ends.
func TestKernelMountLeaks(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, _ filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		path := l.mount(s, "a")
		l.write(path+"/file", "text")
		end := l.elsewhere()
		l.unmount(s, "a", path)
		l.equal(l.isActive(s, "a"), true)

		// Wanted again, it stays.
		path = l.mount(s, "a")
		l.reads(path+"/file", "text")
		l.unmount(s, "a", path)
		l.equal(l.isActive(s, "a"), true)
		end()
		l.waitFor("the device to go", func() bool { return !l.isActive(s, "a") })

		path = l.mount(s, "a")
		l.reads(path+"/file", "text")
		end = l.elsewhere()
		l.unmount(s, "a", path)
		path = l.mount(s, "a")
		end()
		l.reads(path+"/file", "text")
		l.unmount(s, "a", path)
		l.equal(l.isActive(s, "a"), false)
	})
}

// A device that is open is deleted when it is closed, and gives its space back.
func TestKernelDeleteOfWhatIsOpen(t *testing.T) {
	eachFS(t, func(l *kernelLab, s *deviceset.DeviceSet, _ filesystem.Type) {
		l.must(s.AddDevice("a", "", nil))
		before := l.poolStatus(s).Data.Used
		path := l.mount(s, "a")
		l.write(path+"/file", strings.Repeat("text", 1<<20))
		l.refused(s.DeleteDevice("a", true), deviceset.ErrBusy)
		l.equal(s.List(), []string{"a"})
		l.reads(path+"/file", strings.Repeat("text", 1<<20))
		if used := l.poolStatus(s).Data.Used; used < before+32 {
			l.Errorf("4 MiB take %d blocks", used-before)
		}

		l.must(s.DeleteDevice("a", false))
		l.equal(s.HasDevice("a"), false)
		l.equal(s.Status().DeferredDeletedDeviceCount, uint(1))
		l.equal(len(l.thins(s)), 3) // with the base and the label
		l.refused(s.UnmountDevice("a", path), deviceset.ErrNotFound)

		// Its name is free at once.
		l.must(s.AddDevice("a", "", nil))
		again := l.mount(s, "a")
		if _, err := os.Stat(again + "/file"); !os.IsNotExist(err) {
			l.Errorf("the new device has the file of the old: %v", err)
		}
		l.unmount(s, "a", again)
		l.must(s.DeleteDevice("a", true))

		l.must(unix.Unmount(path, 0))
		l.waitIdle(s)
		l.equal(len(l.thins(s)), 2)
		if used := l.poolStatus(s).Data.Used; used > before {
			l.Errorf("%d blocks are in use, %d were before", used, before)
		}
	})
}

// A deletion that is pending goes on after a restart.
func TestKernelDeleteOfWhatIsOpenAfterRestart(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s, p := l.process(options...)
	l.blank(s, "a", 8*mib)
	r := l.raw(s, "a")
	r.write(1, 0, 4*block)
	l.must(s.DeleteDevice("a", false))
	p.die(s)
	s = l.open(options...)
	l.equal(len(s.List()), 0)
	l.equal(s.Status().DeferredDeletedDeviceCount, uint(1))
	r.want(1, 0, 4*block)
	r.close()
	l.waitIdle(s)
	l.equal(len(l.thins(s)), 1)
}
