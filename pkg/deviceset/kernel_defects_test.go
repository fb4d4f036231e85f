package deviceset_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// kernelDefects are those of defects that only a kernel shows.
var kernelDefects = map[string]func(*testing.T){
	"a mount option makes ext4 be mounted with nouuid": nouuidOnExt4,
	"no directory is synced":                           directorySynced,
}

func TestKernelDefects(t *testing.T) {
	for _, d := range defects {
		if test := kernelDefects[d.name]; test != nil {
			t.Run(d.name, test)
		}
	}
}

// ext4 knows no nouuid, and xfs needs it for the second of two copies.
func nouuidOnExt4(t *testing.T) {
	for fs, size := range map[string]string{"ext4": "64M", "xfs": "300M"} {
		l := newKernelLab(t)
		_, _, options := l.onDisks(1024*mib, 16*mib)
		for _, more := range [][]string{nil, {"dm.mountopt=nodiratime"}} {
			s := l.open(append(append(options, more...), "dm.fs="+fs, "dm.basesize="+size)...)
			must(t, s.AddDevice("a", "", nil))
			must(t, s.AddDevice("b", "", nil))
			a, b := l.mount(s, "a", "noatime"), l.mount(s, "b", "nodev")
			l.unmount(s, "a", a)
			l.unmount(s, "b", b)
			must(t, s.Shutdown(l.root))
		}
	}
}

// The root lies on a disk that loses its power at once: nothing that the kernel
// would have written by itself later gets there.
func directorySynced(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	disk := l.disk(128 * mib)
	below := dm.Whole(dm.SectorsIn(128*mib), dm.Linear{Dev: disk.Dev()})
	d, path := l.device("root", below)
	l.tool("mkfs.ext4", "-q", path)
	at := l.directory("disk")
	l.must(unix.Mount(path, at, "ext4", 0, ""))
	l.Cleanup(func() { l.must(unix.Unmount(at, 0)) })

	l.root = at + "/some/where/root"
	s, p := l.process(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	cut := dm.SkipLockFS | dm.NoFlush
	l.must(d.Swap(dm.Whole(dm.SectorsIn(128*mib), dm.ErrorTarget{}), cut))
	p.die(s)
	l.must(unix.Unmount(at, 0))
	l.must(d.Swap(below, cut))
	l.must(unix.Mount(path, at, "ext4", 0, ""))

	if _, err := os.Stat(l.root + "/state.0"); err != nil {
		t.Fatal(err)
	}
	s, err := deviceset.NewDeviceSet(l.root, false, options, nil, nil)
	l.must(err)
	l.holds(s, "a", 1)
	l.must(s.Shutdown(l.root))
}
