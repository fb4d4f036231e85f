package deviceset_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// weigh opens a set and tells how long that took, how many devices it has, and how
// much memory the process takes, in KiB.
func weigh(j job) error {
	begin := time.Now()
	s, err := deviceset.NewDeviceSet(j.Root, false, j.Options, nil, nil)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(rss, &kib); err != nil {
		return err
	}
	fmt.Println(took.Nanoseconds(), len(s.List()), kib)
	return s.Shutdown(j.Root)
}

// Ten thousand devices are ordinary: a start takes about a second, and little memory.
func TestKernelManyDevices(t *testing.T) {
	const many, workers = 10_000, 16
	l := newKernelLab(t)
	_, _, options := l.onDisks(1024*mib, 128*mib)
	options = append(options, "dm.overprovision_ratio=0")
	s := l.open(options...)
	begin := time.Now()
	var wait sync.WaitGroup
	for worker := range workers {
		wait.Go(func() {
			for i := worker; i < many; i += workers {
				if err := s.CreateDevice(fmt.Sprintf("pvc-%032d", i), "", newBlank); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(begin)
	t.Logf("%d devices were made in %v, one in %v", many, took, took/many)
	l.equal(len(s.List()), many)
	last := fmt.Sprintf("pvc-%032d", many-1)
	begin = time.Now()
	l.must(s.AddDevice("copy", last, nil))
	l.must(s.DeleteDevice("copy", true))
	t.Logf("among them, a snapshot and its end take %v", time.Since(begin))
	l.must(s.Shutdown(l.root))

	fastest, most := time.Hour, int64(0)
	for range 3 { // what else the machine does counts for nothing
		c, out := l.start(job{What: "weigh", Root: l.root, Options: options})
		var nanoseconds, devices, kib int64
		_, err := fmt.Fscan(bufio.NewReader(out), &nanoseconds, &devices, &kib)
		l.must(err)
		l.must(c.Wait())
		l.equal(devices, int64(many))
		t.Logf("a start takes %v and %d KiB", time.Duration(nanoseconds), kib)
		fastest, most = min(fastest, time.Duration(nanoseconds)), max(most, kib)
	}
	if fastest > 5*time.Second { // make bench holds it to one; here others may be at work
		t.Errorf("a start takes %v", fastest)
	}
	if most > 64<<10 {
		t.Errorf("a process takes %d KiB, want 64 MiB at most", most)
	}
	l.equal(len(l.thins(l.open(options...))), many+1)
}
