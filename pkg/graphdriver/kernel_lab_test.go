package graphdriver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A lab is a home on this machine with two disks for its pool. A story that leaves a
// mount, a dm device or a loop device behind fails.
type lab struct {
	testing.TB
	kernel  *dm.Control
	home    string
	options []string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	k := dmtest.RequireKernel(t)
	before, err := dmtest.Leftovers(k)
	must(t, err)
	dir, err := os.MkdirTemp("/dev/shm", "graphdriver-")
	must(t, err)
	l := &lab{TB: t, kernel: k, home: filepath.Join(dir, "home")}
	machine := dmtest.NewMachine(k, dir)
	t.Cleanup(func() {
		l.leavesNothing(before)
		must(t, os.RemoveAll(dir))
	})
	l.options = []string{
		"dm.datadev=" + l.disk(machine, 1024*mib), "dm.metadatadev=" + l.disk(machine, 16*mib),
		"dm.basesize=64M", "dm.overprovision_ratio=0",
	}
	return l
}

// disk makes a disk and returns its path.
func (l *lab) disk(m dmtest.Machine, size int64) string {
	l.Helper()
	d, err := m.NewDisk(dm.SectorsIn(size))
	must(l, err)
	l.Cleanup(func() { must(l, d.Close()) })
	link, err := os.Readlink("/sys/dev/block/" + d.Dev().String())
	must(l, err)
	return "/dev/" + filepath.Base(link)
}

// leavesNothing waits for what ends by itself.
func (l *lab) leavesNothing(before []string) {
	l.Helper()
	var left []string
	gone := func() bool {
		after, err := dmtest.Leftovers(l.kernel)
		must(l, err)
		left = slices.DeleteFunc(after, func(what string) bool { return slices.Contains(before, what) })
		return len(left) == 0
	}
	for deadline := time.Now().Add(patience); !gone(); time.Sleep(time.Millisecond) {
		if l.Failed() || time.Now().After(deadline) {
			l.Errorf("left behind: %q", left)
			l.sweep()
			return
		}
	}
}

// sweep takes down what a story that failed has left.
func (l *lab) sweep() {
	mounts, _ := filesystem.Mounts()
	for _, m := range slices.Backward(mounts) {
		if strings.HasPrefix(m.Path, l.home) {
			_ = unix.Unmount(m.Path, unix.MNT_DETACH)
		}
	}
	devices, _ := dm.List(l.kernel, "", "")
	for n := 0; len(devices) > 0 && n < 100; n++ {
		devices, _ = dm.List(l.kernel, "", "")
		for _, d := range devices {
			_ = dm.ByName(l.kernel, d.Name).Remove()
		}
		time.Sleep(10 * time.Millisecond) // a device is closed a while after its unmount
	}
}

const patience = 20 * time.Second

func (l *lab) waitFor(what string, done func() bool) {
	l.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

// start starts a driver, which is shut down with the story.
func (l *lab) start(options ...string) *graphdriver.Driver {
	l.Helper()
	return l.startFor(nil, nil, options...)
}

func (l *lab) startFor(uids, gids []graphdriver.IDMap, options ...string) *graphdriver.Driver {
	l.Helper()
	d, err := graphdriver.Init(l.home, slices.Concat(l.options, options), uids, gids)
	must(l, err)
	l.Cleanup(func() { must(l, d.Cleanup()) })
	return d
}

// get gets a layer.
func (l *lab) get(d *graphdriver.Driver, id string, options ...string) (dir string) {
	l.Helper()
	dir, err := d.Get(id, graphdriver.MountOpts{Options: options})
	must(l, err)
	equals(l, "directory", dir, filepath.Join(l.mountPoint(id), "rootfs"))
	return dir
}

// getRefused fails unless a Get is refused for that cause.
func (l *lab) getRefused(cause error, d *graphdriver.Driver, id string, options ...string) {
	l.Helper()
	_, err := d.Get(id, graphdriver.MountOpts{Options: options})
	refuses(l, err, cause)
}

func (l *lab) mountPoint(id string) string { return filepath.Join(l.home, "mnt", id) }

// isMounted reports whether a layer is mounted.
func (l *lab) isMounted(id string) bool {
	l.Helper()
	mounted, err := deviceset.Mounted(l.mountPoint(id))
	must(l, err)
	return mounted
}

// putAll puts a layer and fails unless that many times are needed to unmount it.
func (l *lab) putAll(d *graphdriver.Driver, id string, times int) {
	l.Helper()
	for n := range times {
		equals(l, fmt.Sprintf("mounted before Put %d", n+1), l.isMounted(id), true)
		must(l, d.Put(id))
	}
	l.gone(id)
}

// gone fails unless a layer is not mounted, and nothing is left of it having been.
func (l *lab) gone(id string) {
	l.Helper()
	for _, path := range []string{l.mountPoint(id), filepath.Join(l.home, "mnt", "."+id+".count")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			l.Fatalf("%s is left: %v", path, err)
		}
	}
}

func (l *lab) write(dir, name, text string) {
	l.Helper()
	must(l, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

func (l *lab) reads(dir, name, want string) {
	l.Helper()
	have, err := os.ReadFile(filepath.Join(dir, name))
	must(l, err)
	equals(l, name, string(have), want)
}

// isActive reports whether a layer has a block device.
func (l *lab) isActive(d *graphdriver.Driver, id string) bool {
	l.Helper()
	m, err := d.Metadata(id)
	must(l, err)
	devices, err := dm.List(l.kernel, m["DeviceName"], "")
	must(l, err)
	return len(devices) > 0
}
