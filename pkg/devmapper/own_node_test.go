package devmapper_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// A device that /dev does not have gets a node of our own, which is the right one, and
// one that /dev has gets none.
func TestKernelOwnNode(t *testing.T) {
	m := dmtest.RealMachine(t)
	dmtest.CheckLeftovers(t, m)
	_, a := activateZero(t, m.Kernel(), "dmtest-own-a", "")
	_, b := activateZero(t, m.Kernel(), "dmtest-own-b", "")
	const own = "/run/csi-dmthin/dev/"
	t.Cleanup(func() { must(t, errors.Join(unix.Unmount(own, 0), os.Remove(own))) })

	path, err := a.NodePath()
	must(t, err)
	if path != a.Node() {
		t.Errorf("%s, and /dev has %s", path, a.Node())
	}
	// /dev may have another device by that name, or did, when the node was made.
	for _, i := range []dm.Info{a, a, b, a} {
		path, err := dm.NodePath("not/there", i.Dev)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if path != own+"not!there" || dm.DevNo(st.Rdev) != i.Dev || st.Mode != unix.S_IFBLK|0o600 {
			t.Errorf("%s has number %s and mode %o, want %s", path, dm.DevNo(st.Rdev), st.Mode, i.Dev)
		}
		f, err := os.Open(path)
		must(t, err)
		must(t, f.Close())
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if n := strings.Count(string(mounts), strings.TrimSuffix(own, "/")+" "); n != 1 {
		t.Errorf("it is mounted %d times", n)
	}
	path, err = dm.MiscPath("not/control", 236)
	must(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, f.Close())
	if path, err := dm.MiscPath("null", 236); err != nil || path != "/dev/null" {
		t.Errorf("%s, %v", path, err)
	}
}
