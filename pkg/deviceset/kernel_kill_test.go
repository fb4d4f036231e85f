package deviceset_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// The test binary is also the process that is killed, and the one that is weighed.
const jobVariable = "DEVICESET_TEST_JOB"

func init() {
	text := os.Getenv(jobVariable)
	if text == "" {
		return
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		panic(err)
	}
	if err := jobs[j.What](j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A job is what such a process is to do.
type job struct {
	What    string
	Root    string
	Options []string
	Seed    uint64
}

var jobs = map[string]func(job) error{"churn": churn, "weigh": weigh, "stall": stall}

// start starts a process with a job.
func (l *kernelLab) start(j job) (c *exec.Cmd, out io.Reader) {
	l.Helper()
	text, err := json.Marshal(j)
	l.must(err)
	self, err := os.Executable()
	l.must(err)
	c = exec.Command(self)
	c.Env = append(os.Environ(), jobVariable+"="+string(text))
	c.Stderr = os.Stderr
	out, err = c.StdoutPipe()
	l.must(err)
	l.must(c.Start())
	return c, out
}

const (
	churners  = 16
	churnSize = 8 * mib
)

// churn has several workers change the pool without end, each its own devices. Each
// tells what it is about to do, and what has been answered.
func churn(j job) error {
	s, err := deviceset.NewDeviceSet(j.Root, true, j.Options, nil, nil)
	if err != nil {
		return err
	}
	fmt.Println("open")
	failed := make(chan error)
	for worker := range churners {
		go func() { failed <- churnOn(s, worker, j.Seed) }()
	}
	return <-failed
}

func churnOn(s *deviceset.DeviceSet, worker int, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, uint64(worker)))
	prefix := fmt.Sprintf("w%d-", worker)
	mine := slices.DeleteFunc(s.List(), func(name string) bool { return !strings.HasPrefix(name, prefix) })
	for n := 0; ; n++ {
		what, name, parent, size := "create", fmt.Sprintf("%s%d-%d", prefix, seed, n), "", churnSize
		if len(mine) > 0 {
			old := mine[random.IntN(len(mine))]
			switch random.IntN(8) {
			case 0, 1:
				what, parent = "snapshot", old
			case 2, 3, 4:
				what, name = "delete", old
			case 5:
				what, name = "grow", old
			case 6:
				what, name = "activate", old
			case 7:
				what, name = "deactivate", old
			}
		}
		if d, err := s.Device(old(parent, name)); err == nil {
			size = d.Size
		}
		if what == "grow" {
			size += mib
		}
		fmt.Printf("begin %s %s %d\n", what, name, size)
		if err := churnOnce(s, what, name, parent, size, random.IntN(2) == 0); err != nil {
			return fmt.Errorf("%s %s: %w", what, name, err)
		}
		fmt.Printf("done %s %s %d\n", what, name, size)
		switch what {
		case "create", "snapshot":
			mine = append(mine, name)
		case "delete":
			mine = slices.DeleteFunc(mine, func(have string) bool { return have == name })
		}
	}
}

func old(parent, name string) string {
	if parent != "" {
		return parent
	}
	return name
}

func churnOnce(s *deviceset.DeviceSet, what, name, parent string, size int64, wait bool) error {
	switch what {
	case "create":
		return s.CreateDevice(name, "", deviceset.DeviceOptions{FS: "none", Size: size})
	case "snapshot":
		return s.CreateDevice(name, parent, deviceset.DeviceOptions{})
	case "delete":
		return s.DeleteDevice(name, wait)
	case "grow":
		return s.GrowDevice(name, size)
	case "activate":
		_, err := s.ActivateDevice(name)
		return err
	}
	return s.DeactivateDevice(name)
}

// A history is what a process has told, by the name of a device.
type history struct {
	devices map[string]int64  // size of each that is there for certain
	open    map[string]string // what was begun and not answered
	done    int
}

// read takes in what a process tells until it dies. A line that is cut off was not
// told.
func (h *history) read(out *bufio.Reader) {
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		if len(words) != 4 {
			continue
		}
		what, name := words[1], words[2]
		size, _ := strconv.ParseInt(words[3], 10, 64) // we printed it
		if words[0] == "begin" {
			h.open[name] = what
			continue
		}
		h.done++
		delete(h.open, name)
		switch what {
		case "create", "snapshot", "grow":
			h.devices[name] = size
		case "delete":
			delete(h.devices, name)
		}
	}
}

// check fails unless all that was answered is so, and settles the rest by what is.
func (h *history) check(l *kernelLab, s *deviceset.DeviceSet) {
	l.Helper()
	have := map[string]int64{}
	for _, name := range s.List() {
		d, err := s.Device(name)
		l.must(err)
		if d.Err != nil {
			l.Errorf("%s: %v", name, d.Err)
		}
		have[name] = d.Size
	}
	for name, size := range h.devices {
		switch got, there := have[name]; {
		case !there && h.open[name] != "delete":
			l.Errorf("%s is lost", name)
		case there && got != size && (h.open[name] != "grow" || got != size+mib):
			l.Errorf("%s has %d bytes, want %d", name, got, size)
		}
	}
	for name := range have {
		if _, known := h.devices[name]; !known && h.open[name] != "create" && h.open[name] != "snapshot" {
			l.Errorf("%s is there, and should not be", name)
		}
	}
	h.devices, h.open = have, map[string]string{}
}

// whole fails unless the pool has the devices of the set and the label, and nothing
// else, and all that is active runs.
func (l *kernelLab) whole(s *deviceset.DeviceSet) {
	l.Helper()
	l.waitFor("what was begun to end", func() bool {
		st := s.Status()
		return st.OpenOperations == 0 && st.DeferredDeletedDeviceCount == 0
	})
	want := []dm.DeviceID{0}
	for _, name := range s.List() {
		d, err := s.Device(name)
		l.must(err)
		want = append(want, d.ID)
	}
	slices.Sort(want)
	if have := l.thins(s); !slices.Equal(have, want) {
		l.Errorf("the pool has %v, want %v", have, want)
	}
	st := s.Status()
	l.equal([]int{len(st.Orphans), len(st.Ghosts), len(st.Quarantined)}, []int{0, 0, 0})
	l.equal(st.ReadOnly, "")
	l.runs()
}

// kills has a process churn and kills it within a window, again and again.
func kills(t *testing.T, rounds int, window time.Duration) {
	if text := os.Getenv("CSI_DMTHIN_KILLS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	l := newKernelLab(t)
	_, _, options := l.onDisks(512*mib, 32*mib)
	options = append(options, "dm.overprovision_ratio=0", "dm.min_free_metadata=0%")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := &history{devices: map[string]int64{}, open: map[string]string{}}
	var opening, longest time.Duration
	interrupted := 0
	for round := range rounds {
		c, pipe := l.start(job{What: "churn", Root: l.root, Options: options, Seed: uint64(round)})
		out := bufio.NewReader(pipe)
		if line, err := out.ReadString('\n'); line != "open\n" {
			t.Fatalf("round %d: the process says %q, %v", round, line, err)
		}
		var reading sync.WaitGroup
		reading.Go(func() { h.read(out) })
		time.Sleep(time.Duration(random.Int64N(int64(window))))
		l.must(c.Process.Kill())
		reading.Wait()
		if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Fatalf("round %d: the process ended by itself: %v", round, err)
		}
		interrupted += len(h.open)

		begin := time.Now()
		s, err := deviceset.NewDeviceSet(l.root, false, options, nil, nil)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		took := time.Since(begin)
		opening, longest = opening+took, max(longest, took)
		h.check(l, s)
		l.whole(s)
		prune(l, s, h, random)
		l.must(s.Shutdown(l.root))
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	s := l.open(options...)
	for _, name := range s.List() {
		l.must(s.DeactivateDevice(name))
	}
	t.Logf("%d kills, %d answers, %d interrupted; a start took %v on average, %v at most",
		rounds, h.done, interrupted, opening/time.Duration(max(rounds, 1)), longest)
}

// prune keeps the pool from growing over the rounds.
func prune(l *kernelLab, s *deviceset.DeviceSet, h *history, random *rand.Rand) {
	l.Helper()
	for _, name := range s.List() {
		if len(h.devices) > 100 && random.IntN(2) == 0 {
			l.must(s.DeleteDevice(name, true))
			delete(h.devices, name)
		}
	}
}

// Whenever the process is killed, nothing that it has answered is lost, nothing is
// leaked, and no device stays suspended. CSI_DMTHIN_KILLS says how often it is tried.
func TestKernelKill(t *testing.T) { kills(t, 150, 150*time.Millisecond) }

// Likewise where its threads run at the same time.
func TestKernelSMPKill(t *testing.T) {
	dmtest.RequireSMP(t)
	kills(t, 50, 600*time.Millisecond)
}
