package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/test/postgres/daemon"
)

const (
	mib      = 1 << 20
	poolSize = 2048 * mib
	// prefix is how the names of the demo's devices begin.
	prefix = "csi-demo"
)

// A stage is where the story happens: a folder, the kernel, and the daemons. What is
// made on it is taken down again, the last thing first.
type stage struct {
	kernel  *dm.Control
	before  []string // what the machine had already
	dir     string
	daemons []*daemon.Process
	undo    []func() error
}

func newStage() (*stage, error) {
	kernel, err := dm.Open()
	if err != nil {
		return nil, err
	}
	before, err := dmtest.Leftovers(kernel)
	if err != nil {
		return nil, err
	}
	// Not in /tmp: the pool's file is large, and on some machines that is memory.
	dir, err := os.MkdirTemp("/var/tmp", "csi-demo-")
	if err != nil {
		return nil, err
	}
	// PostgreSQL passes through it, as another user.
	return &stage{kernel: kernel, before: before, dir: dir}, os.Chmod(dir, 0o711)
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) later(undo func() error) { s.undo = append(s.undo, undo) }

// downTo takes down what was made after the first n things.
func (s *stage) downTo(n int) (err error) {
	for len(s.undo) > n {
		last := len(s.undo) - 1
		undo := s.undo[last]
		s.undo = s.undo[:last]
		err = errors.Join(err, undo())
	}
	return err
}

// close takes everything down. If it cannot, the folder stays, for whoever has to.
func (s *stage) close() error {
	if err := s.downTo(0); err != nil {
		return fmt.Errorf("not all could be taken down: see %s", s.dir)
	}
	return os.RemoveAll(s.dir)
}

// runs has a daemon stopped in the end, and asked for its last words if that is bad.
func (s *stage) runs(d *daemon.Process) {
	s.daemons = append(s.daemons, d)
	s.later(d.Stop)
}

// lastWords is what the daemons said last, the server first, and more of it.
func (s *stage) lastWords() (words string) {
	lines := 20
	for _, d := range s.daemons {
		words += d.LastWords(lines)
		lines = 5
	}
	return words
}

// serve starts csi-dmthin, which lies beside the demo, on a new pool.
func (s *stage) serve() (*driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket, kubelet := s.path("csi.sock"), s.path("kubelet")
	if err := errors.Join(os.Mkdir(s.path("state"), 0o700), os.Mkdir(kubelet, 0o755)); err != nil {
		return nil, err
	}
	// What the file system below has no room for cannot be promised, unless the pool may
	// promise more than it has. In the box that has less room than the pool's size.
	d, err := daemon.Start(exec.Command(filepath.Join(filepath.Dir(self), "csi-dmthin"), "serve", "-v", "1",
		"--endpoint", "unix://"+socket, "--state-dir", s.path("state"), "--kubelet-dir", kubelet,
		"--admin-socket", s.path("admin.sock"), "--node", "demo", "--http", "",
		"--pools", fmt.Sprintf("default:loopdatasize=%d,prefix=%s,overprovision_ratio=2", poolSize, prefix)),
		s.path("log"), syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	s.runs(d)
	driver, err := dial(socket, kubelet)
	if err != nil {
		return nil, err
	}
	s.later(driver.socket.Close)
	return driver, d.Until("got ready", driver.isReady)
}

// poolUse asks the kernel, and not the server, how full the pool is, in bytes.
func (s *stage) poolUse() (used, total uint64, err error) {
	devices, err := dm.List(s.kernel, prefix, "")
	if err != nil {
		return 0, 0, err
	}
	i := slices.IndexFunc(devices, func(d dm.Listed) bool { return strings.HasSuffix(d.Name, "-pool") })
	if i < 0 {
		return 0, 0, errors.New("there is no pool")
	}
	status, err := dm.Pool{Device: dm.ByName(s.kernel, devices[i].Name)}.PoolStatus()
	if err != nil || !status.Known() {
		return 0, 0, errors.Join(err, errors.New("the pool does not tell how full it is"))
	}
	block := poolSize / max(status.Data.Total, 1)
	return status.Data.Used * block, poolSize, nil
}

// waitForUse waits until the pool is as full as that: what is deleted may go a
// little later, when the last who has it open lets go.
func (s *stage) waitForUse(want uint64) error {
	for limit := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		used, _, err := s.poolUse()
		if err != nil || used == want {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("the pool has %d bytes in use, and had %d before there was a volume", used, want)
		}
	}
}

// nothingLeft fails if the machine has a device, a loop or a mount that it had not
// before.
func (s *stage) nothingLeft() error {
	now, err := dmtest.Leftovers(s.kernel)
	if err != nil {
		return err
	}
	now = slices.DeleteFunc(now, func(thing string) bool { return slices.Contains(s.before, thing) })
	if len(now) > 0 {
		return fmt.Errorf("left behind: %v", now)
	}
	return nil
}
