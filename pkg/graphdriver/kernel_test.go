package graphdriver_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A layer has its files below rootfs, which all may enter, and its name beside them.
func TestKernelGet(t *testing.T) {
	for _, options := range [][]string{{"dm.fs=ext4"}, {"dm.fs=xfs", "dm.basesize=300M"}} {
		t.Run(options[0], func(t *testing.T) {
			l := newLab(t)
			d := l.start(options...)
			must(t, d.Create("a", "", nil))
			defer unix.Umask(unix.Umask(0o077))
			dir := l.get(d, "a")
			st, err := os.Stat(dir)
			must(t, err)
			equals(t, "mode", st.Mode(), fs.ModeDir|0o555)
			l.reads(l.mountPoint("a"), "id", "a")
			st, err = os.Stat(filepath.Join(l.mountPoint("a"), "id"))
			must(t, err)
			equals(t, "mode of id", st.Mode(), fs.FileMode(0o600))
			files, err := os.ReadDir(dir)
			must(t, err)
			equals(t, "files", len(files), 0)

			// What its owner does to rootfs stays, also in a copy.
			must(t, os.Chmod(dir, 0o711))
			l.write(dir, "file", "text")
			l.putAll(d, "a", 1)
			must(t, d.Create("b", "a", nil))
			for _, id := range []string{"a", "b"} {
				dir = l.get(d, id)
				l.reads(dir, "file", "text")
				l.reads(l.mountPoint(id), "id", "a")
				st, err = os.Stat(dir)
				must(t, err)
				equals(t, "mode", st.Mode(), fs.ModeDir|0o711)
				l.putAll(d, id, 1)
			}
			must(t, d.Put("a"))
			equals(t, "active", l.isActive(d, "a"), false)
		})
	}
}

// As many as get a layer have to put it, all at once as they may.
func TestKernelGetCounts(t *testing.T) {
	l := newLab(t)
	d := l.start()
	for _, id := range []string{"a", "b"} {
		must(t, d.Create(id, "", nil))
	}
	const many = 100
	together := func(do func(id string, n int) error) {
		t.Helper()
		var all sync.WaitGroup
		errs := make(chan error, many)
		for n := range many {
			all.Go(func() { errs <- do([]string{"a", "b"}[n%2], n) })
		}
		all.Wait()
		for range many {
			must(t, <-errs)
		}
	}
	together(func(id string, n int) error {
		dir, err := d.Get(id, graphdriver.MountOpts{})
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), nil, 0o600)
	})
	for _, id := range []string{"a", "b"} {
		files, err := os.ReadDir(filepath.Join(l.mountPoint(id), "rootfs"))
		must(t, err)
		equals(t, "files", len(files), many/2)
	}
	l.get(d, "a")
	together(func(id string, _ int) error { return d.Put(id) })
	l.gone("b")
	l.putAll(d, "a", 1)

	together(func(id string, _ int) error { // in any order
		if _, err := d.Get(id, graphdriver.MountOpts{}); err != nil {
			return err
		}
		return d.Put(id)
	})
	l.gone("a")
	l.gone("b")
}

// A fresh layer may be mounted read-only at once. Who reads is content with what is
// mounted for writing, and who writes is not content with what is read-only.
func TestKernelGetReadOnly(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	for range 2 { // fresh, and not
		dir := l.get(d, "a", "noatime", "ro")
		refuses(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), unix.EROFS)
		l.reads(l.mountPoint("a"), "id", "a")
		l.get(d, "a", "ro")
		l.getRefused(deviceset.ErrExists, d, "a")
		l.getRefused(deviceset.ErrExists, d, "a", "ro", "rw")
		l.putAll(d, "a", 2)
	}
	dir := l.get(d, "a")
	l.get(d, "a", "ro")
	l.get(d, "a", "ro,noatime")
	l.write(dir, "file", "text")
	l.putAll(d, "a", 3)
}

// A layer that is read-only by nature, or by dm.mountopt, is so for everybody.
func TestKernelGetReadOnlyByNature(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	l.write(l.get(d, "a"), "file", "text")
	l.putAll(d, "a", 1)
	must(t, d.Create("snapshot", "a", storage("readonly=true")))
	for _, options := range [][]string{nil, {"ro"}, {"rw"}} {
		l.reads(l.get(d, "snapshot", options...), "file", "text")
	}
	l.putAll(d, "snapshot", 3)

	// Nobody can give it files that it does not have.
	must(t, d.Create("empty", "", storage("readonly=true")))
	l.getRefused(unix.EROFS, d, "empty")
	l.gone("empty")
	equals(t, "active", l.isActive(d, "empty"), false)

	must(t, d.Cleanup())
	d = l.start("dm.mountopt=ro")
	must(t, d.Create("b", "", nil))
	for range 2 {
		refuses(t, os.Mkdir(filepath.Join(l.get(d, "b"), "x"), 0o700), unix.EROFS)
	}
	l.getRefused(deviceset.ErrExists, d, "b", "rw")
	l.putAll(d, "b", 2)
}

// A Get that fails leaves nothing behind.
func TestKernelGetFails(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	l.getRefused(unix.EINVAL, d, "a", "no_such_option")
	l.gone("a")
	equals(t, "active", l.isActive(d, "a"), false)
	must(t, d.Create("blank", "", storage("fs=none")))
	l.getRefused(deviceset.ErrNotFormatted, d, "blank")
	l.gone("blank")

	// What somebody else has mounted there is left alone.
	must(t, os.MkdirAll(l.mountPoint("a"), 0o755))
	must(t, unix.Mount("tmpfs", l.mountPoint("a"), "tmpfs", 0, ""))
	l.getRefused(deviceset.ErrForeign, d, "a")
	refuses(t, d.Put("a"), deviceset.ErrForeign)
	refuses(t, d.Put("nobody"), deviceset.ErrNotFound)
	equals(t, "mounted", l.isMounted("a"), true)
	must(t, unix.Unmount(l.mountPoint("a"), 0))
	must(t, d.Put("a"))
	l.gone("a")
}

// A link in place of rootfs, on a device that somebody else wrote, leads nowhere.
func TestKernelGetFollowsNoLink(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	path := t.TempDir()
	must(t, d.MountDevice("a", path, graphdriver.MountOpts{}))
	target := t.TempDir()
	must(t, os.Chmod(target, 0o700))
	must(t, os.Symlink(target, filepath.Join(path, "rootfs")))
	must(t, d.UnmountDevice("a", path))
	_, err := d.Get("a", graphdriver.MountOpts{})
	if err == nil {
		t.Error("rootfs is a link, and no error")
	}
	l.gone("a")
	st, err := os.Stat(target)
	must(t, err)
	equals(t, "mode", st.Mode(), fs.ModeDir|0o700)
}

// A child of a parent that is mounted and being written to has its data.
func TestKernelCreateOfMounted(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	dir := l.get(d, "a")
	l.write(dir, "file", strings.Repeat("text", 1<<18)) // not synced
	must(t, d.Create("b", "a", nil))
	must(t, d.CreateFromTemplate("c", "a", "", nil, true))
	l.write(dir, "file", "later")
	for _, id := range []string{"b", "c"} {
		l.reads(l.get(d, id), "file", strings.Repeat("text", 1<<18))
	}
	l.reads(dir, "file", "later")
	for _, id := range []string{"a", "b", "c"} {
		l.putAll(d, id, 1)
	}
}

// With deferred deletion a layer that is mounted goes with its last Put.
func TestKernelRemoveMounted(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	dir := l.get(d, "a")
	l.get(d, "a")
	for range 2 {
		must(t, d.Remove("a"))
	}
	equals(t, "exists", d.Exists("a"), false)
	equals(t, "layers", len(layers(t, d)), 0)
	l.getRefused(deviceset.ErrNotFound, d, "a")
	refuses(t, d.Create("a", "", nil), deviceset.ErrBusy)
	must(t, d.Put("a"))
	l.write(dir, "file", "text") // for who got it second
	must(t, d.Put("a"))
	l.gone("a")
	refuses(t, d.Put("a"), deviceset.ErrNotFound)
	l.waitFor("the deletion", func() bool { return d.DeviceSet.Status().DeferredDeletedDeviceCount == 0 })

	// Its name is free.
	must(t, d.Create("a", "", nil))
	if _, err := os.Stat(filepath.Join(l.get(d, "a"), "file")); !os.IsNotExist(err) {
		t.Errorf("the new layer has the file of the old: %v", err)
	}
	l.putAll(d, "a", 1)
	must(t, d.Remove("a"))
}

// Without, it is refused and stays.
func TestKernelRemoveMountedRefused(t *testing.T) {
	for _, options := range [][]string{
		{"dm.use_deferred_deletion=false"},
		{"dm.use_deferred_deletion=false", "dm.use_deferred_removal=false"},
	} {
		t.Run(strings.Join(options, ","), func(t *testing.T) {
			l := newLab(t)
			d := l.start(options...)
			must(t, d.Create("a", "", nil))
			dir := l.get(d, "a")
			l.get(d, "a")
			refuses(t, d.Remove("a"), deviceset.ErrBusy)
			equals(t, "layers", layers(t, d), []string{"a"})
			l.write(dir, "file", "text")
			l.putAll(d, "a", 2)
			must(t, d.Remove("a"))
			equals(t, "layers", len(layers(t, d)), 0)
		})
	}
}

// Another mount namespace that has inherited a mount does not keep the device, nor hold
// up Put and Remove.
func TestKernelMountLeaks(t *testing.T) {
	for _, options := range [][]string{
		{"dm.use_deferred_deletion=true"},
		{"dm.use_deferred_deletion=false", "dm.use_deferred_removal=false"},
	} {
		t.Run(strings.Join(options, ","), func(t *testing.T) {
			l := newLab(t)
			d := l.start(options...)
			must(t, d.Create("a", "", nil))
			l.get(d, "a")
			c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000")
			out, err := c.StdoutPipe()
			must(t, err)
			must(t, c.Start())
			defer func() { _ = c.Wait() }()
			defer func() { _ = c.Process.Kill() }()
			_, err = out.Read(make([]byte, 6))
			must(t, err)
			l.putAll(d, "a", 1)
			l.waitFor("the device to go", func() bool { return !l.isActive(d, "a") })
			must(t, d.Remove("a"))
			l.waitFor("the deletion", func() bool { return d.DeviceSet.Status().DeferredDeletedDeviceCount == 0 })
		})
	}
}

// The directories belong to the root of the id maps.
func TestKernelIDMaps(t *testing.T) {
	l := newLab(t)
	d := l.startFor([]graphdriver.IDMap{{ContainerID: 0, HostID: 1000, Size: 10}}, []graphdriver.IDMap{{ContainerID: 0, HostID: 2000, Size: 10}})
	must(t, d.Create("a", "", nil))
	dir := l.get(d, "a")
	owned := func(path string) {
		t.Helper()
		st, err := os.Stat(path)
		must(t, err)
		sys := st.Sys().(*syscall.Stat_t)
		equals(t, "owner of "+path, []uint32{sys.Uid, sys.Gid}, []uint32{1000, 2000})
	}
	owned(l.home)
	owned(filepath.Join(l.home, "mnt"))
	owned(dir)
	l.putAll(d, "a", 1)
}

// A driver that ends leaves what is mounted to the next, and what is not is gone.
func TestKernelInitAgain(t *testing.T) {
	l := newLab(t)
	d := l.start()
	for _, id := range []string{"a", "b", "c"} {
		must(t, d.Create(id, "", nil))
	}
	must(t, d.Remove("b"))
	l.write(l.get(d, "a"), "file", "text")
	l.get(d, "a")
	l.get(d, "c")
	l.putAll(d, "c", 1)
	if _, err := graphdriver.Init(l.home, l.options, nil, nil); err == nil {
		t.Fatal("two drivers have one home")
	} else {
		refuses(t, err, deviceset.ErrInUse)
	}
	before, err := d.Metadata("a")
	must(t, err)
	must(t, d.Cleanup())
	equals(t, "mounted", l.isMounted("a"), true)

	d = l.start()
	equals(t, "layers", layers(t, d), []string{"a", "c"})
	after, err := d.Metadata("a")
	must(t, err)
	equals(t, "metadata", after, before)
	l.reads(l.get(d, "a", "ro"), "file", "text")
	l.putAll(d, "a", 3)
	must(t, d.Cleanup())
	l.noMounts()

	d = l.start()
	equals(t, "layers", layers(t, d), []string{"a", "c"})
}

// noMounts fails unless nothing is mounted below the home.
func (l *lab) noMounts() {
	l.Helper()
	mounts, err := filesystem.Mounts()
	must(l, err)
	for _, m := range mounts {
		if strings.HasPrefix(m.Path, l.home) {
			l.Errorf("%s is mounted at %s", m.Source, m.Path)
		}
	}
}

// A failed Init leaves nothing, which the lab sees to.
func TestKernelInitFails(t *testing.T) {
	l := newLab(t)
	for _, options := range [][]string{{"dm.no_such=1"}, {"dm.datadev"}, {"dm.basesize=much"}, {"dm.datadev=/dev/nothing"}} {
		if d, err := graphdriver.Init(l.home, append(l.options, options...), nil, nil); err == nil {
			must(t, d.Cleanup())
			t.Errorf("%v: no error", options)
		}
	}
}

// The test binary is also the process that is killed.
const victimVariable = "GRAPHDRIVER_TEST_VICTIM"

type victim struct {
	Home    string
	Options []string
}

func init() {
	text := os.Getenv(victimVariable)
	if text == "" {
		return
	}
	if err := beVictim(text); err != nil {
		fmt.Println(err)
	}
	os.Exit(1)
}

// beVictim mounts layers and waits for the end.
func beVictim(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	d, err := graphdriver.Init(v.Home, v.Options, nil, nil)
	if err != nil {
		return err
	}
	for _, id := range []string{"a", "b", "removed"} {
		if err := d.Create(id, "", nil); err != nil {
			return err
		}
	}
	for _, id := range []string{"a", "a", "a", "b", "removed", "removed"} {
		if _, err := d.Get(id, graphdriver.MountOpts{}); err != nil {
			return err
		}
	}
	if err := d.Put("a"); err != nil {
		return err
	}
	if err := d.Remove("removed"); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// What a process that was killed had mounted stays so, and is counted as before.
func TestKernelKill(t *testing.T) {
	l := newLab(t)
	text, err := json.Marshal(victim{l.home, l.options})
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	c := exec.Command(self)
	c.Env = append(os.Environ(), victimVariable+"="+string(text))
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, c.Process.Kill())
	_ = c.Wait() // it was killed
	if line != "ready\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}

	d := l.start()
	l.write(filepath.Join(l.mountPoint("a"), "rootfs"), "file", "text")
	l.get(d, "a")
	l.putAll(d, "a", 3)
	l.putAll(d, "b", 1)
	equals(t, "layers", layers(t, d), []string{"a", "b"})
	l.putAll(d, "removed", 2)
	l.waitFor("the deletion", func() bool { return d.DeviceSet.Status().DeferredDeletedDeviceCount == 0 })
	l.reads(l.get(d, "a"), "file", "text")
	l.putAll(d, "a", 1)
}

// A Get that was cut short before the layer had its files is finished by the next.
func TestKernelGetAfterHalfAGet(t *testing.T) {
	for _, option := range []string{"rw", "ro"} {
		t.Run(option, func(t *testing.T) {
			l := newLab(t)
			d := l.start()
			for _, id := range []string{"a", "other"} {
				must(t, d.Create(id, "", nil))
			}
			l.get(d, "other")
			l.putAll(d, "other", 1)
			must(t, os.Mkdir(l.mountPoint("a"), 0o755))
			must(t, d.MountDevice("a", l.mountPoint("a"), graphdriver.MountOpts{Options: []string{option}}))
			_, err := os.Stat(l.get(d, "a", option))
			must(t, err)
			l.putAll(d, "a", 2) // one is for the Get that nobody was answered
		})
	}
}

// The count of before a reboot says nothing.
func TestKernelGetAfterReboot(t *testing.T) {
	l := newLab(t)
	d := l.start()
	must(t, d.Create("a", "", nil))
	l.get(d, "a")
	l.get(d, "a")
	must(t, unix.Unmount(l.mountPoint("a"), 0)) // as a reboot does
	l.get(d, "a")
	l.putAll(d, "a", 1)

	l.get(d, "a")
	l.get(d, "a")
	must(t, unix.Unmount(l.mountPoint("a"), 0))
	must(t, d.Put("a"))
	l.gone("a")
	must(t, d.DeactivateDevice("a"))
}
