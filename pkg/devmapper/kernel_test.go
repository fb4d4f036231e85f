package devmapper_test

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// The stories that the simulator passes too, on the real kernel.
func TestKernelStories(t *testing.T) {
	dmtest.RequireKernel(t)
	dmtest.Run(t, dmtest.RealMachine)
}

// activateZero activates a device that goes with the test.
func activateZero(t *testing.T, k dm.Kernel, name, uuid string) (dm.Device, dm.Info) {
	t.Helper()
	d, err := dm.Activate(k, name, uuid, dm.Whole(2048, dm.Zero{}))
	must(t, err)
	t.Cleanup(func() { must(t, d.Remove()) })
	info, err := d.Info()
	must(t, err)
	return d, info
}

func TestKernelOpenNode(t *testing.T) {
	m := dmtest.RealMachine(t)
	dmtest.CheckLeftovers(t, m)
	_, a := activateZero(t, m.Kernel(), "dmtest-node-a", "dmtest-uuid-a")
	_, b := activateZero(t, m.Kernel(), "dmtest-node-b", "dmtest-uuid-b")

	f, err := dm.OpenNode(a, os.O_RDONLY)
	must(t, err)
	must(t, f.Close())

	reused := a
	reused.UUID = b.UUID // what remains of a device whose minor number another one has now
	if _, err := dm.OpenNode(reused, os.O_RDONLY); !errors.Is(err, dm.ErrWrongNode) {
		t.Errorf("of another uuid: error is %v", err)
	}
	elsewhere := a
	elsewhere.Dev = dm.MakeDevNo(a.Dev.Major()+1, a.Dev.Minor())
	if _, err := dm.OpenNode(elsewhere, os.O_RDONLY); !errors.Is(err, dm.ErrWrongNode) {
		t.Errorf("of another major number: error is %v", err)
	}
	gone := a
	gone.Dev = dm.MakeDevNo(a.Dev.Major(), 99999)
	if _, err := dm.OpenNode(gone, os.O_RDONLY); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no device: error is %v", err)
	}
}

func TestKernelDiscardIsRefusedByWhatCannot(t *testing.T) {
	m := dmtest.RealMachine(t)
	dmtest.CheckLeftovers(t, m)
	disk, err := m.NewDisk(2048)
	must(t, err)
	d, err := dm.Activate(m.Kernel(), "dmtest-no-discard", "", dm.Table{
		{Length: 1024, Target: dm.Linear{Dev: disk.Dev()}}, {Start: 1024, Length: 1024, Target: dm.ErrorTarget{}},
	})
	must(t, err)
	info, err := d.Info()
	must(t, err)
	f, err := m.Open(info)
	must(t, err)
	if err := f.Discard(0, 7); err == nil {
		t.Error("a discard of half a sector was taken")
	}
	must(t, f.Close())
	must(t, d.Remove())
	must(t, disk.Close())
}

// Whoever lacks CAP_SYS_ADMIN is told so, and nothing else.
func TestKernelWithoutPrivilege(t *testing.T) {
	k := dmtest.RequireKernel(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			done <- errno
			return
		}
		_, err := dm.Create(k, "dmtest-unprivileged", "")
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EACCES) {
		t.Errorf("error is %v", err)
	}
}

// A Kernel that is closed says so, and its file descriptor's next owner hears
// nothing.
func TestKernelClosed(t *testing.T) {
	dmtest.RequireKernel(t)
	k, err := dm.Open()
	must(t, err)
	must(t, k.Close())
	if _, err := dm.GetVersion(k); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error is %v", err)
	}
}
