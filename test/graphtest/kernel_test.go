package graphtest

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.podman.io/storage/drivers/graphtest"
	"go.podman.io/storage/pkg/reexec"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// The library starts the test binary anew to unpack a layer in a chroot.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	if err := Register(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var options = []string{
	"dm.loopdatasize=2G", "dm.loopmetadatasize=32M", "dm.basesize=64M",
	"overlay.mountopt=nodev", // somebody else's
}

// ready prepares a test, which has to leave the machine as it was, and returns the
// driver's name and options.
func ready(t *testing.T) (name string, o []string) {
	t.Helper()
	k := dmtest.RequireKernel(t)
	before, err := dmtest.Leftovers(k)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", "/dev/shm") // where the suite has its homes
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			after, err := dmtest.Leftovers(k)
			if err != nil {
				t.Fatal(err)
			}
			left = slices.DeleteFunc(after, func(what string) bool { return slices.Contains(before, what) })
			if len(left) == 0 {
				return
			}
		}
		t.Errorf("left behind: %q", left)
	})
	return Name, options
}

func TestKernelCreateEmpty(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestCreateEmpty(t, name, o...)
}

func TestKernelCreateBase(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestCreateBase(t, name, o...)
}

func TestKernelCreateSnap(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestCreateSnap(t, name, o...)
}

func TestKernelCreateFromTemplate(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestCreateFromTemplate(t, name, o...)
}

// As many layers as the library's own drivers are tested with.
func TestKernelDeepLayerRead(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestDeepLayerRead(t, 128, name, o...)
}

func TestKernelDiffApply(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestDiffApply(t, 10, name, o...)
}

func TestKernelChanges(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestChanges(t, name, o...)
}

func TestKernelEcho(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestEcho(t, name, o...)
}

func TestKernelListLayers(t *testing.T) {
	name, o := ready(t)
	graphtest.DriverTestListLayers(t, name, o...)
}

// DriverTestSetQuota is not here. It demands EDQUOT of a write beyond a layer's size,
// which is a quota's answer; a layer of ours is a block device, and one that is full
// answers ENOSPC. It also asks for a layer of 50 MB under a base device of any size, and
// none is smaller than its parent.
