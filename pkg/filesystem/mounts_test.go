package filesystem

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// Lines as kernels print them (fs/proc_namespace.c, show_mountinfo).
func TestMountPoints(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		want MountPoint
	}{
		"plain": {
			`36 35 253:3 / /mnt/a rw,noatime master:1 - ext4 /dev/dm-3 rw,errors=remount-ro`,
			MountPoint{"/mnt/a", "/", "ext4", "/dev/dm-3", 253, 3, []string{"rw", "noatime"}, []string{"rw", "errors=remount-ro"}},
		},
		"no propagation": {
			`36 35 253:3 / /mnt/a ro - xfs /dev/dm-3 rw`,
			MountPoint{"/mnt/a", "/", "xfs", "/dev/dm-3", 253, 3, []string{"ro"}, []string{"rw"}},
		},
		"much propagation": {
			`36 35 253:3 /sub /mnt/a rw shared:7 master:1 propagate_from:2 - xfs /dev/dm-3 ro`,
			MountPoint{"/mnt/a", "/sub", "xfs", "/dev/dm-3", 253, 3, []string{"rw"}, []string{"ro"}},
		},
		"escapes": {
			`36 35 0:50 /\134x /mnt/a\040b\011c\012d rw - tmpfs two\040words rw`,
			MountPoint{"/mnt/a b\tc\nd", `/\x`, "tmpfs", "two words", 0, 50, []string{"rw"}, []string{"rw"}},
		},
		"empty source": {
			`36 35 0:50 / /mnt/a rw - tmpfs  rw`,
			MountPoint{"/mnt/a", "/", "tmpfs", "", 0, 50, []string{"rw"}, []string{"rw"}},
		},
		"odd space": {
			"36 35 0:50 / /mnt/a\u00a0b\r rw - tmpfs x rw",
			MountPoint{"/mnt/a\u00a0b\r", "/", "tmpfs", "x", 0, 50, []string{"rw"}, []string{"rw"}},
		},
		"label with a comma": {
			`36 35 253:3 / /mnt/a rw - xfs /dev/dm-3 rw,context="u:r:t:s0:c1,c2",nouuid`,
			MountPoint{"/mnt/a", "/", "xfs", "/dev/dm-3", 253, 3, []string{"rw"}, []string{"rw", `context="u:r:t:s0:c1,c2"`, "nouuid"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			infos, err := mountinfo.GetMountsFromReader(strings.NewReader(test.line+"\n"), nil)
			if err != nil || len(infos) != 1 {
				t.Fatal(infos, err)
			}
			if got := present(infos[0]); !reflect.DeepEqual(got, test.want) {
				t.Errorf("%+v\nwant %+v", got, test.want)
			}
			if want := name == "no propagation" || name == "much propagation"; test.want.ReadOnly() != want {
				t.Errorf("read-only: %t", !want)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	all, err := Mounts()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, m := range all {
		same, err := MountsOf(m.Major, m.Minor)
		if err != nil || len(same) == 0 {
			t.Fatalf("%+v: %v, %v", m, same, err)
		}
	}
}

func TestMountedAt(t *testing.T) {
	dir := t.TempDir()
	toProc, outside := filepath.Join(dir, "proc"), filepath.Join(dir, "root")
	if err := os.Symlink("/proc", toProc); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", outside); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/proc":                             true,
		"/proc/":                            true,
		"/proc/../proc":                     true,
		"/proc/self/..":                     true,
		outside + "/proc":                   true,
		"/":                                 true,
		toProc:                              false, // the link is not mounted, and its end has another name
		toProc + "/":                        false,
		dir:                                 false,
		"/proc/self/status":                 false,
		filepath.Join(dir, "nothing/there"): false,
		"":                                  false,
	} {
		m, mounted, err := MountedAt(path)
		if err != nil || mounted != want || mounted && path != "/" && m.FSType != "proc" {
			t.Errorf("%q: %+v, %t, %v; want %t", path, m, mounted, err, want)
		}
	}
	if _, _, err := MountedAt("/proc/self/status/x"); err == nil {
		t.Error("a path through a file has an answer")
	}
}

// Without root, nothing is mounted, and to take away nothing is no error, which
// needs no permission that is not checked.
func TestUnmountOfNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("umount2 asks for CAP_SYS_ADMIN first")
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nothing"), "/nowhere/at/all"} {
		if err := Unmount(t.Context(), path, UnmountOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func TestMountRefuses(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		target  string
		options MountOptions
		words   string
	}{
		{link, MountOptions{}, "not a directory"},
		{"/nowhere", MountOptions{}, "no such file"},
		{dir, MountOptions{Options: []string{"nodev,bind"}}, `with options "nodev,bind": option bind is not for`},
	} {
		err := Mount("/dev/x", test.target, XFS, test.options)
		if err == nil || !strings.HasPrefix(err.Error(), "mount /dev/x at "+test.target+" as xfs") || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s, %v: %v", test.target, test.options, err)
		}
	}
}

func TestLogOfKernel(t *testing.T) {
	record := "3,1234,987654,-;XFS (dm-3): Filesystem has duplicate UUID\n SUBSYSTEM=block\n DEVICE=b253:3\n"
	if got := messageOf(record); got != "XFS (dm-3): Filesystem has duplicate UUID" {
		t.Errorf("%q", got)
	}
	for message, want := range map[string]bool{
		"XFS (dm-3): x":                  true,
		"EXT4-fs (dm-3): x":              true,
		"/dev/dm-3: Can't open blockdev": true,
		"xfs: Unknown parameter 'x'":     true,
		"EXT4-fs (dm-33): x":             false,
		"EXT4-fs: x":                     false,
		"ext4: Unknown parameter 'x'":    false,
		"device-mapper: thin: 253:3: x":  false,
	} {
		if concerns(message, "dm-3", XFS) != want {
			t.Errorf("%q: %t", message, !want)
		}
	}
}
