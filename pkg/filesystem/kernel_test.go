package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests mount, and so run in the box.

// requireKernel ends a test that cannot have a kernel to itself.
func requireKernel(t testing.TB) {
	t.Helper()
	if os.Getenv("BOX_KERNEL") != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no kernel to test on")
	}
	t.Skip("no kernel to test on (make test-kernel)")
}

// A disk is a loop device over a file in memory.
type disk struct{ device, file string }

func newDisk(t testing.TB, size int64) disk {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "filesystem-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	return attach(t, file)
}

func attach(t testing.TB, file string) disk {
	t.Helper()
	device := strings.TrimSpace(tool(t, nil, "losetup", "--find", "--show", file))
	t.Cleanup(func() { tool(t, nil, "losetup", "--detach", device) })
	return disk{device, file}
}

// grow gives the disk more bytes.
func (d disk) grow(t testing.TB, size int64) {
	t.Helper()
	if err := os.Truncate(d.file, size); err != nil {
		t.Fatal(err)
	}
	tool(t, nil, "losetup", "--set-capacity", d.device)
}

// clone returns another disk with the same on it.
func (d disk) clone(t testing.TB) disk {
	t.Helper()
	file := d.file + "-clone"
	tool(t, nil, "cp", "--sparse=always", d.file, file)
	t.Cleanup(func() { _ = os.Remove(file) })
	return attach(t, file)
}

// minSizes are what the tests make file systems of.
var minSizes = map[Type]int64{Ext4: 64 * mib, XFS: 300 * mib}

// formatted returns a disk with a file system on it.
func formatted(t testing.TB, kind Type) disk {
	t.Helper()
	d := newDisk(t, minSizes[kind])
	if err := Make(t.Context(), d.device, kind, MakeOptions{Prezeroed: true}); err != nil {
		t.Fatal(err)
	}
	return d
}

// mountIt mounts d at a new directory until the test ends.
func mountIt(t testing.TB, d disk, kind Type, o MountOptions) (target string) {
	t.Helper()
	target = t.TempDir()
	if err := Mount(d.device, target, kind, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, target) })
	return target
}

func unmountAll(t testing.TB, target string) {
	t.Helper()
	for {
		_, mounted, err := MountedAt(target)
		if err != nil {
			t.Fatal(err)
		}
		if !mounted {
			return
		}
		if err := Unmount(context.Background(), target, UnmountOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s has %q, %v; want %q", path, got, err, want)
	}
}

func mustHaveNone(t testing.TB, d disk) {
	t.Helper()
	number, err := numberOf(d.device)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := MountsOf(number.major, number.minor); err != nil || len(left) > 0 {
		t.Errorf("mounted still: %+v, %v", left, err)
	}
}

func eachType(t *testing.T, test func(t *testing.T, kind Type)) {
	requireKernel(t)
	for _, kind := range []Type{Ext4, XFS} {
		t.Run(string(kind), func(t *testing.T) { test(t, kind) })
	}
}

// From blank to written, unmounted and found again.
func TestKernelLife(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := newDisk(t, minSizes[kind])
		if _, err := ProbeDevice(d.device); !errors.Is(err, ErrBlank) {
			t.Errorf("a new disk: %v", err)
		}
		if err := Make(t.Context(), d.device, kind, MakeOptions{UUID: uuid, Prezeroed: true}); err != nil {
			t.Fatal(err)
		}
		target := mountIt(t, d, kind, MountOptions{Options: []string{"noatime", "nodev"}})
		write(t, target+"/file", "text")
		m, mounted, err := MountedAt(target)
		if err != nil || !mounted || m.FSType != string(kind) || m.Source != d.device || m.Root != "/" || m.ReadOnly() {
			t.Errorf("%+v, %t, %v", m, mounted, err)
		}
		if options := strings.Join(m.Options, ","); options != "rw,nodev,noatime" {
			t.Errorf("mounted with %s", options)
		}
		if info, err := ProbeDevice(d.device); err != nil || info.UUID != uuid {
			t.Errorf("probed while mounted: %+v, %v", info, err)
		}
		unmountAll(t, target)
		mustHaveNone(t, d)
		want := Info{Type: kind, UUID: uuid, Size: minSizes[kind]}
		if info, err := ProbeDevice(d.device); err != nil || info != want {
			t.Errorf("%+v, %v; want %+v", info, err, want)
		}

		target = mountIt(t, d, kind, MountOptions{ReadOnly: true, Options: []string{"rw"}})
		mustRead(t, target+"/file", "text")
		if err := os.WriteFile(target+"/file", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("a write to what is read-only: %v", err)
		}
		if m, _, err := MountedAt(target); err != nil || !m.ReadOnly() {
			t.Errorf("%+v, %v", m, err)
		}
	})
}

// Clones have one UUID, and are mounted at once.
func TestKernelClones(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		first := mountIt(t, d, kind, MountOptions{})
		write(t, first+"/file", "text")
		unix.Sync()
		second := mountIt(t, d.clone(t), kind, MountOptions{Options: []string{"noatime"}})
		mustRead(t, second+"/file", "text")
		write(t, second+"/file", "other")
		mustRead(t, first+"/file", "text")
	})
}

func TestKernelGrow(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		target := mountIt(t, d, kind, MountOptions{})
		write(t, target+"/file", "text")
		if err := Grow(t.Context(), d.device, target, kind); err != nil {
			t.Errorf("nothing to grow: %v", err)
		}
		before := capacity(t, target)
		d.grow(t, 2*minSizes[kind])
		for range 2 { // twice is as good as once
			if err := Grow(t.Context(), d.device, target, kind); err != nil {
				t.Fatal(err)
			}
		}
		if after := capacity(t, target); after < before*9/5 {
			t.Errorf("from %d bytes to %d", before, after)
		}
		mustRead(t, target+"/file", "text")
		unmountAll(t, target)
		if info, err := ProbeDevice(d.device); err != nil || info.Size != 2*minSizes[kind] {
			t.Errorf("%+v, %v", info, err)
		}
	})
}

// Where there is nothing to do, nobody is asked to do it.
func TestKernelGrowWithoutTool(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		target := mountIt(t, d, kind, MountOptions{})
		t.Setenv("PATH", "")
		if err := Grow(t.Context(), d.device, target, kind); err != nil {
			t.Error(err)
		}
	})
}

// Nothing but the device's own file system is grown.
func TestKernelGrowOfOthers(t *testing.T) {
	requireKernel(t)
	a, b := formatted(t, XFS), formatted(t, XFS)
	target := mountIt(t, a, XFS, MountOptions{})
	for _, err := range []error{
		Grow(t.Context(), b.device, target, XFS),
		Grow(t.Context(), a.device, t.TempDir(), XFS),
	} {
		if !errors.Is(err, ErrNotMounted) {
			t.Error(err)
		}
	}
}

func capacity(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

// An ext4 with an error is dirty, is checked, and is clean.
func TestKernelCheck(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	target := mountIt(t, d, Ext4, MountOptions{})
	write(t, target+"/file", "text")
	unmountAll(t, target)
	breakExt(t, d.device, "set_super_value state 3")
	if info, err := ProbeDevice(d.device); err != nil || !info.Dirty {
		t.Errorf("%+v, %v", info, err)
	}
	if err := Check(t.Context(), d.device, Ext4); err != nil {
		t.Fatal(err)
	}
	if info, err := ProbeDevice(d.device); err != nil || info.Dirty {
		t.Errorf("%+v, %v", info, err)
	}
	mustRead(t, mountIt(t, d, Ext4, MountOptions{})+"/file", "text")
}

// What is mounted is not checked.
func TestKernelCheckOfMounted(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	mountIt(t, d, Ext4, MountOptions{})
	if err := Check(t.Context(), d.device, Ext4); err == nil || errors.Is(err, ErrNeedsRepair) {
		t.Error(err)
	}
}

// A journal that was not replayed is no reason to check.
func TestKernelJournalIsNoDirt(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		target := mountIt(t, d, kind, MountOptions{})
		write(t, target+"/file", "text")
		unix.Sync()
		crashed := d.clone(t)
		if info, err := ProbeDevice(crashed.device); err != nil || info.Dirty {
			t.Errorf("%+v, %v", info, err)
		}
		mustRead(t, mountIt(t, crashed, kind, MountOptions{})+"/file", "text")
	})
}

// A mount that fails leaves nothing, and the error has the kernel's reason.
func TestKernelMountFails(t *testing.T) {
	requireKernel(t)
	ext, xfs := formatted(t, Ext4), formatted(t, XFS)
	retries := uint(1)
	for _, test := range []struct {
		name  string
		disk  disk
		t     Type
		o     MountOptions
		words []string
	}{
		{"an unknown option", ext, Ext4, MountOptions{Options: []string{"noatime,what=ever"}},
			[]string{`"what=ever,errors=remount-ro"`, "invalid argument", "kernel: ", "what"}},
		{"an unknown option of xfs", xfs, XFS, MountOptions{Options: []string{"whatever"}},
			[]string{"kernel: ", "whatever"}},
		{"another type", xfs, Ext4, MountOptions{}, []string{"kernel: ", "ext4"}},
		{"another type", ext, XFS, MountOptions{XFSNoSpaceRetries: &retries}, []string{"kernel: ", "magic number"}},
		{"nouuid on ext4", ext, Ext4, MountOptions{Options: []string{"nouuid"}}, []string{"kernel: ", "nouuid"}},
		{"no such type", ext, "nonesuch", MountOptions{}, []string{"no such device"}},
	} {
		target := t.TempDir()
		err := Mount(test.disk.device, target, test.t, test.o)
		prefix := fmt.Sprintf("mount %s at %s as %s with options ", test.disk.device, target, test.t)
		if err == nil || !strings.HasPrefix(err.Error(), prefix) {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		t.Log(err)
		for _, word := range test.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: no %q in %v", test.name, word, err)
			}
		}
		if len(err.Error()) > len(prefix)+400 {
			t.Errorf("%s: %d bytes of error", test.name, len(err.Error()))
		}
		mustHaveNone(t, test.disk)
	}
}

// An ext4 whose journal cannot be read is refused in the kernel's words.
func TestKernelMountOfDamaged(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	breakExt(t, d.device, "clri <8>")
	err := Mount(d.device, t.TempDir(), Ext4, MountOptions{})
	if err == nil || !strings.Contains(err.Error(), "(kernel: EXT4-fs (") {
		t.Error(err)
	}
	mustHaveNone(t, d)
}

func TestKernelRetries(t *testing.T) {
	requireKernel(t)
	d := formatted(t, XFS)
	retries := uint(3)
	mountIt(t, d, XFS, MountOptions{XFSNoSpaceRetries: &retries})
	for _, class := range []string{"ENOSPC", "EIO"} {
		mustRead(t, "/sys/fs/xfs/"+filepath.Base(d.device)+"/error/metadata/"+class+"/max_retries", "3\n")
	}
	mustRead(t, "/sys/fs/xfs/"+filepath.Base(d.device)+"/error/metadata/default/max_retries", "-1\n")
}

// Rather not mounted than without the limit.
func TestKernelRetriesRefused(t *testing.T) {
	requireKernel(t)
	d := formatted(t, XFS)
	retries := uint(1) << 40
	target := t.TempDir()
	err := Mount(d.device, target, XFS, MountOptions{XFSNoSpaceRetries: &retries})
	if err == nil || !strings.Contains(err.Error(), "limit retries of xfs: ") {
		t.Error(err)
	}
	mustHaveNone(t, d)
	if err := Mount(formatted(t, Ext4).device, target, Ext4, MountOptions{XFSNoSpaceRetries: &retries}); err != nil {
		t.Errorf("ext4 has no such limit, but: %v", err)
	}
	unmountAll(t, target)
}

// Bind mounts are mounts of the device, and are told from directories.
func TestKernelBindMounts(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	target := mountIt(t, d, Ext4, MountOptions{})
	if err := unix.Mount("", target, "", unix.MS_PRIVATE, ""); err != nil { // or what is mounted here is in its bind mounts too
		t.Fatal(err)
	}
	whole, part, within := t.TempDir(), filepath.Join(t.TempDir(), "white space\\"), target+"/within"
	for _, dir := range []string{target + "/sub", within, part} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, bind := range [][2]string{{target, whole}, {target + "/sub", part}, {target + "/sub", within}} {
		if err := unix.Mount(bind[0], bind[1], "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unmountAll(t, bind[1]) })
	}
	for path, root := range map[string]string{whole: "/", part: "/sub", within: "/sub", target: "/"} {
		if m, mounted, err := MountedAt(path); err != nil || !mounted || m.Path != path || m.Root != root || m.FSType != "ext4" {
			t.Errorf("%s: %+v, %t, %v", path, m, mounted, err)
		}
	}
	if m, mounted, err := MountedAt(target + "/sub"); err != nil || mounted {
		t.Errorf("a directory: %+v, %v", m, err)
	}
	number, err := numberOf(d.device)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := MountsOf(number.major, number.minor); err != nil || len(all) != 4 {
		t.Errorf("%+v, %v; want 4", all, err)
	}
}

// Of stacked mounts the topmost counts, and Unmount takes one at a time.
func TestKernelStackedMounts(t *testing.T) {
	requireKernel(t)
	target := mountIt(t, formatted(t, Ext4), Ext4, MountOptions{})
	if err := unix.Mount("", target, "tmpfs", 0, ""); err != nil { // a source that is empty, too
		t.Fatal(err)
	}
	for _, want := range []string{"tmpfs", "ext4", ""} {
		m, mounted, err := MountedAt(target)
		if err != nil || m.FSType != want || mounted != (want != "") {
			t.Errorf("%+v, %t, %v; want %q", m, mounted, err, want)
		}
		if err := Unmount(t.Context(), target, UnmountOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// What another mount hides is not mounted there, for whoever looks.
func TestKernelHiddenMount(t *testing.T) {
	requireKernel(t)
	outer := t.TempDir()
	target := outer + "/inner"
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Mount(formatted(t, Ext4).device, target, Ext4, MountOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, target) })
	if err := unix.Mount("x", outer, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, outer) })
	for range 2 {
		if m, mounted, err := MountedAt(target); err != nil || mounted {
			t.Errorf("%+v, %v", m, err)
		}
		if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
}

// Busy is an error after a while, and nothing to one who may detach.
func TestKernelBusyUnmount(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		target := mountIt(t, d, kind, MountOptions{})
		f, err := os.Create(target + "/file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		start := time.Now()
		if err := Unmount(t.Context(), target, UnmountOptions{}); !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
		if took := time.Since(start); took < time.Second || took > 5*time.Second {
			t.Errorf("gave up after %v", took)
		}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		if err := Unmount(stopped, target, UnmountOptions{Lazy: true}); !errors.Is(err, context.Canceled) || !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
		if _, mounted, err := MountedAt(target); err != nil || !mounted {
			t.Errorf("%t, %v", mounted, err)
		}
		for range 2 {
			if err := Unmount(t.Context(), target, UnmountOptions{Lazy: true}); err != nil {
				t.Error(err)
			}
			mustHaveNone(t, d)
		}
		if _, err := f.WriteString("still here"); err != nil {
			t.Error(err)
		}
	})
}

// Who is busy for an instant only is waited for.
func TestKernelBusyForAnInstant(t *testing.T) {
	requireKernel(t)
	target := mountIt(t, formatted(t, Ext4), Ext4, MountOptions{})
	f, err := os.Create(target + "/file")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = f.Close() })
	if err := Unmount(t.Context(), target, UnmountOptions{}); err != nil {
		t.Error(err)
	}
}

// An xfs that has shut down answers nothing, and is seen and unmounted.
func TestKernelShutDown(t *testing.T) {
	requireKernel(t)
	d := formatted(t, XFS)
	target := mountIt(t, d, XFS, MountOptions{})
	write(t, target+"/file", "text")
	tool(t, nil, "xfs_io", "-x", "-c", "shutdown", target)
	if _, err := os.ReadDir(target); !errors.Is(err, unix.EIO) {
		t.Errorf("not shut down: %v", err)
	}
	if m, mounted, err := MountedAt(target); err != nil || !mounted || m.FSType != "xfs" {
		t.Errorf("%+v, %t, %v", m, mounted, err)
	}
	if err := Unmount(t.Context(), target, UnmountOptions{}); err != nil {
		t.Error(err)
	}
	mustHaveNone(t, d)
}

// An ext4 in which the kernel sees an error takes no more writes, and is dirty
// until it was checked.
func TestKernelError(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	target := mountIt(t, d, Ext4, MountOptions{})
	if err := turn("/sys/fs/ext4/"+filepath.Base(d.device)+"/trigger_fs_error", 1); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target+"/file", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("a write after an error: %v", err)
	}
	unmountAll(t, target)
	for _, dirty := range []bool{true, false} {
		if info, err := ProbeDevice(d.device); err != nil || info.Dirty != dirty {
			t.Errorf("%+v, %v; want dirty %t", info, err, dirty)
		}
		if err := Check(t.Context(), d.device, Ext4); err != nil {
			t.Fatal(err)
		}
	}
}

// The page cache of a device does not know what was written to what is below it;
// Probe does.
func TestKernelProbeBelowCache(t *testing.T) {
	requireKernel(t)
	d := newDisk(t, 8*mib)
	cached := make([]byte, headSize)
	f, err := os.Open(d.device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // or the cache is dropped
	if _, err := f.ReadAt(cached, 0); err != nil {
		t.Fatal(err)
	}
	below, err := os.OpenFile(d.file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer below.Close()
	if _, err := below.WriteAt(anExt(8*mib, nil), 0); err != nil {
		t.Fatal(err)
	}
	if info, err := ProbeDevice(d.device); err != nil || info.UUID != uuidByHand {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := f.ReadAt(cached, 0); err != nil || !bytes.Equal(cached, make([]byte, headSize)) {
		t.Logf("the page cache knew it, so this test shows nothing (%v)", err)
	}
}

// A label is SELinux's affair. Without SELinux the mount is refused, not made
// without it.
func TestKernelLabel(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	target := t.TempDir()
	err := Mount(d.device, target, Ext4, MountOptions{Label: "system_u:object_r:container_file_t:s0:c1,c2"})
	t.Cleanup(func() { unmountAll(t, target) })
	m, mounted, lookErr := MountedAt(target)
	labelled := strings.Contains(strings.Join(m.SuperOptions, " "), "context=")
	if lookErr != nil || mounted != (err == nil) || mounted && !labelled {
		t.Errorf("%v, %+v, %v", err, m, lookErr)
	}
	t.Log(err)
}

// Probing, mounting and unmounting need no tool.
func TestKernelForksNothing(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		target := t.TempDir()
		var before, after unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &before); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", "")
		const rounds = 20
		var probe, mount, look, unmount time.Duration
		for range rounds {
			probe += took(t, func() error { _, err := ProbeDevice(d.device); return err })
			mount += took(t, func() error { return Mount(d.device, target, kind, MountOptions{}) })
			look += took(t, func() error { _, _, err := MountedAt(target); return err })
			unmount += took(t, func() error { return Unmount(t.Context(), target, UnmountOptions{}) })
		}
		if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &after); err != nil || after.Minflt != before.Minflt {
			t.Errorf("somebody was started: %d faults of children, before %d, %v", after.Minflt, before.Minflt, err)
		}
		t.Logf("probe %v, mount %v, look %v, unmount %v", probe/rounds, mount/rounds, look/rounds, unmount/rounds)
	})
}

func took(t *testing.T, do func() error) time.Duration {
	t.Helper()
	start := time.Now()
	if err := do(); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}
