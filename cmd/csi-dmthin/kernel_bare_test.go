package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// With this variable the test binary runs its tests where /dev is a tmpfs in which
// nothing appears by itself.
const bareVariable = "CSI_DMTHIN_TEST_BARE"

// In a container that is a Kubernetes node /dev is a tmpfs, and has the devices that were
// there when it began. The same stories are told there.
func TestKernelServeWithoutDevtmpfs(t *testing.T) {
	dmtest.RequireKernel(t)
	const stories = "^TestKernel(Serve|ServeBlock|ServeBlockInUse|ServeDeviceGone|RetiredPool)$/^(ext4|xfs|by_its_options)$/^undisturbed$"
	tests := exec.Command(os.Args[0], "-test.v", "-test.run", stories)
	tests.Env = append(os.Environ(), bareVariable+"=1")
	tests.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := tests.CombinedOutput()
	t.Logf("%s", out)
	must(t, err)
}

// runBare runs tests in a /dev of their own, in a mount namespace that is theirs already.
func runBare(m *testing.M) int {
	if err := bareDev(); err != nil {
		fmt.Println(err)
		return 1
	}
	code := m.Run()
	inDev, _ := filepath.Glob("/dev/[dl][mo]*")
	own, _ := filepath.Glob("/run/csi-dmthin/dev/*")
	fmt.Println("in /dev:", inDev, "of our own:", own)
	if len(inDev) > 0 || len(own) == 0 {
		return 1
	}
	return code
}

func bareDev() error {
	const null = 1<<8 | 3
	return errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/dev", "tmpfs", 0, ""),
		unix.Mknod("/dev/null", unix.S_IFCHR|0o666, null),
		os.Mkdir("/dev/shm", 0o700),
		// What an earlier process has made of its own is of another namespace.
		os.MkdirAll("/run/csi-dmthin", 0o700),
		unix.Mount("tmpfs", "/run/csi-dmthin", "tmpfs", unix.MS_NODEV, ""),
	)
}
