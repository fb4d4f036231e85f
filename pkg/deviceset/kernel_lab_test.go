package deviceset_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

const (
	mib   = int64(1) << 20
	block = 128 * int64(1) << 10 // of a pool that is made by rule
)

// A kernelLab is this machine, with disks over files in memory. A story that leaves
// a device, a loop device or a mount behind fails.
type kernelLab struct {
	testing.TB
	dmtest.Machine
	kernel *dm.Control
	dir    string // in memory
	root   string // of device sets, which need not exist
}

func newKernelLab(t testing.TB) *kernelLab {
	t.Helper()
	l := &kernelLab{TB: t, kernel: dmtest.RequireKernel(t)}
	before, err := dmtest.Leftovers(l.kernel)
	l.must(err)
	l.dir, err = os.MkdirTemp("/dev/shm", "deviceset-")
	l.must(err)
	t.Cleanup(func() { l.leave(before) })
	l.Machine, l.root = dmtest.NewMachine(l.kernel, l.dir), filepath.Join(l.dir, "root")
	return l
}

func (l *kernelLab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// refused fails unless err is the cause given.
func (l *kernelLab) refused(err, cause error) {
	l.Helper()
	if !errors.Is(err, cause) {
		l.Fatalf("error is %v, want %v", err, cause)
	}
}

func (l *kernelLab) equal(have, want any) {
	l.Helper()
	if fmt.Sprintf("%#v", have) != fmt.Sprintf("%#v", want) {
		l.Fatalf("have %v, want %v", have, want)
	}
}

const patience = 20 * time.Second

// waitFor fails if something does not come true in time.
func (l *kernelLab) waitFor(what string, done func() bool) {
	l.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

// tool runs a program and returns what it prints.
func (l *kernelLab) tool(name string, args ...string) string {
	l.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		l.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// leave fails the story if more is attached to the machine than before it, and
// cleans up for the next one.
func (l *kernelLab) leave(before []string) {
	var left []string
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		after, err := dmtest.Leftovers(l.kernel)
		if err != nil {
			l.Error(err)
		}
		left = slices.DeleteFunc(after, func(what string) bool { return slices.Contains(before, what) })
		if len(left) == 0 || time.Now().After(deadline) || l.Failed() {
			break
		}
	}
	if len(left) > 0 {
		if !l.Failed() {
			l.Errorf("left behind: %q", left)
		}
		l.sweep()
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.Error(err)
	}
}

// sweep takes down what a story that failed has left.
func (l *kernelLab) sweep() {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(mounts), "\n") {
		if words := strings.Fields(line); len(words) > 4 && strings.HasPrefix(words[4], l.dir) {
			_ = unix.Unmount(words[4], unix.MNT_DETACH)
		}
	}
	for range 20 {
		devices, _ := dm.List(l.kernel, "", "")
		for _, d := range devices {
			_ = dm.ByName(l.kernel, d.Name).ClearInactive()
			_ = dm.ByName(l.kernel, d.Name).Resume()
			_ = dm.ByName(l.kernel, d.Name).Remove()
		}
		if len(devices) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond) // unmounting goes on for a while
	}
	_ = exec.Command("losetup", "--detach-all").Run()
}

var names atomic.Int64

// name returns a name that no story has used before.
func (l *kernelLab) name(what string) string {
	return fmt.Sprintf("dmtest-%s-%d", what, names.Add(1))
}

// A kernelDisk is a disk with its path.
type kernelDisk struct {
	dmtest.Disk
	path string
}

func (l *kernelLab) disk(size int64) kernelDisk {
	l.Helper()
	d, err := l.NewDisk(dm.SectorsIn(size))
	l.must(err)
	l.Cleanup(func() {
		if err := d.Close(); err != nil {
			l.Error(err)
		}
	})
	return kernelDisk{d, l.pathOf(d.Dev())}
}

// pathOf returns the node of a block device.
func (l *kernelLab) pathOf(dev dm.DevNo) string {
	l.Helper()
	link, err := os.Readlink("/sys/dev/block/" + dev.String())
	l.must(err)
	return "/dev/" + filepath.Base(link)
}

// device activates a dm device that lasts as long as the story.
func (l *kernelLab) device(what string, table dm.Table) (d dm.Device, path string) {
	l.Helper()
	d, err := dm.Activate(l.kernel, l.name(what), "", table)
	l.must(err)
	l.Cleanup(func() {
		if _, err := d.Info(); err == nil {
			if err := d.Remove(); err != nil {
				l.Error(err)
			}
		}
	})
	info, err := d.Info()
	l.must(err)
	return d, info.Node()
}

// onDisks returns the options of a pool on two new disks.
func (l *kernelLab) onDisks(dataSize, metadataSize int64) (data, metadata kernelDisk, options []string) {
	l.Helper()
	data, metadata = l.disk(dataSize), l.disk(metadataSize)
	return data, metadata, []string{"dm.datadev=" + data.path, "dm.metadatadev=" + metadata.path}
}

// open opens the device set of the lab's root until the story ends, or shuts it down.
func (l *kernelLab) open(options ...string) *deviceset.DeviceSet {
	l.Helper()
	s, err := deviceset.NewDeviceSet(l.root, true, options, nil, nil)
	l.must(err)
	l.shutAtEnd(s)
	return s
}

func (l *kernelLab) shutAtEnd(s *deviceset.DeviceSet) {
	l.Cleanup(func() {
		if err := s.Shutdown(l.root); err != nil {
			l.Error(err)
		}
	})
}

// notOpened fails unless opening the device set is refused for that cause.
func (l *kernelLab) notOpened(cause error, options ...string) {
	l.Helper()
	s, err := deviceset.NewDeviceSet(l.root, true, options, nil, nil)
	if err == nil {
		l.shutAtEnd(s)
	}
	l.refused(err, cause)
}

// blank makes a device without a file system.
func (l *kernelLab) blank(s *deviceset.DeviceSet, name string, size int64) {
	l.Helper()
	l.must(s.CreateDevice(name, "", deviceset.DeviceOptions{FS: "none", Size: size}))
}

// A raw is a device, open for direct I/O.
type raw struct {
	*os.File
	lab *kernelLab
}

// raw activates a device and opens it.
func (l *kernelLab) raw(s *deviceset.DeviceSet, name string) *raw {
	l.Helper()
	path, err := s.ActivateDevice(name)
	l.must(err)
	return l.openRaw(path)
}

func (l *kernelLab) openRaw(path string) *raw {
	l.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	l.must(err)
	l.Cleanup(func() { _ = f.Close() })
	return &raw{f, l}
}

// pattern returns n bytes that no other seed gives.
func pattern(seed uint64, n int64) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = random.Read(b) // never fails
	return b
}

func (r *raw) tryWrite(seed uint64, at, n int64) error {
	_, err := dm.WithAligned(int(n), func(b []byte) (int, error) {
		copy(b, pattern(seed, n))
		return r.WriteAt(b, at)
	})
	return err
}

func (r *raw) write(seed uint64, at, n int64) {
	r.lab.Helper()
	r.lab.must(r.tryWrite(seed, at, n))
}

func (r *raw) read(at, n int64) ([]byte, error) {
	have := make([]byte, n)
	_, err := dm.WithAligned(int(n), func(b []byte) (int, error) {
		m, err := r.ReadAt(b, at)
		copy(have, b[:m])
		return m, err
	})
	return have, err
}

// want fails unless what is read is what was written.
func (r *raw) want(seed uint64, at, n int64) {
	r.lab.Helper()
	have, err := r.read(at, n)
	r.lab.must(err)
	if !bytes.Equal(have, pattern(seed, n)) {
		r.lab.Fatalf("%s: %d bytes at %d are not those of %d", r.Name(), n, at, seed)
	}
}

func (r *raw) close() {
	r.lab.Helper()
	r.lab.must(r.Close())
}

// put writes the first bytes of a device, and leaves it inactive.
func (l *kernelLab) put(s *deviceset.DeviceSet, name string, seed uint64) {
	l.Helper()
	r := l.raw(s, name)
	r.write(seed, 0, 4*block)
	l.must(r.Sync())
	r.close()
	l.must(s.DeactivateDevice(name))
}

// holds fails unless a device has what put wrote.
func (l *kernelLab) holds(s *deviceset.DeviceSet, name string, seed uint64) {
	l.Helper()
	r := l.raw(s, name)
	r.want(seed, 0, 4*block)
	r.close()
	l.must(s.DeactivateDevice(name))
}

// sum returns a checksum of a file or device.
func (l *kernelLab) sum(path string) string {
	l.Helper()
	f, err := os.Open(path)
	l.must(err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	l.must(err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// poolStatus asks the kernel for the status of the pool, without us.
func (l *kernelLab) poolStatus(s *deviceset.DeviceSet) dm.PoolStatus {
	l.Helper()
	status, err := l.pool(s).PoolStatus()
	l.must(err)
	return status
}

func (l *kernelLab) pool(s *deviceset.DeviceSet) dm.Pool {
	return dm.Pool{Device: dm.ByName(l.kernel, s.Status().PoolName)}
}

// isActive reports whether a device of the set is active.
func (l *kernelLab) isActive(s *deviceset.DeviceSet, name string) bool {
	l.Helper()
	_, err := l.thin(s, name).Info()
	if err != nil {
		l.refused(err, unix.ENXIO)
	}
	return err == nil
}

// thin returns the dm device of a device.
func (l *kernelLab) thin(s *deviceset.DeviceSet, name string) dm.Device {
	l.Helper()
	d, err := s.Device(name)
	l.must(err)
	return dm.ByUUID(l.kernel, fmt.Sprintf("CSI-DMTHIN-%s-%d", s.PoolUUID(), d.ID))
}

// thins returns the ids of all thin devices of a pool, as thin_ls has them.
func (l *kernelLab) thins(s *deviceset.DeviceSet) (ids []dm.DeviceID) {
	l.Helper()
	_, err := l.pool(s).Commit()
	l.must(err)
	table, err := l.pool(s).Table()
	l.must(err)
	host, err := deviceset.ThisMachine()
	l.must(err)
	defer host.Close()
	m, err := host.Metadata(table[0].Target.(dm.ThinPool).Metadata)
	l.must(err)
	defer m.Close()
	devices, err := m.Devices()
	l.must(err)
	for _, d := range devices {
		ids = append(ids, d.ID)
	}
	return ids
}

// directory makes an empty directory.
func (l *kernelLab) directory(name string) string {
	l.Helper()
	path := filepath.Join(l.dir, name)
	l.must(os.MkdirAll(path, 0o700))
	return path
}
