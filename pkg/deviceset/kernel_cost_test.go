package deviceset_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A counter is this machine, counting.
type counter struct {
	*deviceset.Host
	messages, probes, statuses, others atomic.Int64 // of device-mapper
	rootWrites, rootSyncs              atomic.Int64
	labelWrites, labelSyncs            atomic.Int64
	latency                            time.Duration // of the root's disk
}

func (c *counter) Do(r dm.Request) (dm.Reply, error) {
	var id, origin int
	switch n, _ := fmt.Sscanf(r.Message, "create_snap %d %d", &id, &origin); {
	case n == 2 && id == origin:
		c.probes.Add(1)
	case r.Command == dm.TargetMsg:
		c.messages.Add(1)
	case r.Command == dm.TableStatus && r.Flags&dm.NoFlush != 0 && r.Flags&dm.StatusTable == 0:
		c.statuses.Add(1)
	default:
		c.others.Add(1)
	}
	return c.Host.Do(r)
}

type countedBlock struct {
	deviceset.Block
	writes, syncs *atomic.Int64
	latency       time.Duration
}

func (b countedBlock) WriteAt(p []byte, at int64) (int, error) {
	b.writes.Add(1)
	return b.Block.WriteAt(p, at)
}

func (b countedBlock) Sync() error {
	b.syncs.Add(1)
	time.Sleep(b.latency)
	return b.Block.Sync()
}

func (c *counter) OpenSlots(root string) ([2]deviceset.Block, error) {
	slots, err := c.Host.OpenSlots(root)
	for i := range slots {
		slots[i] = countedBlock{slots[i], &c.rootWrites, &c.rootSyncs, c.latency}
	}
	return slots, err
}

func (c *counter) OpenDevice(i dm.Info, exclusive bool) (deviceset.Block, error) {
	b, err := c.Host.OpenDevice(i, exclusive)
	return countedBlock{b, &c.labelWrites, &c.labelSyncs, 0}, err
}

// costs are what has been counted so far.
type costs struct {
	Probes, Messages, Statuses, Others  int64
	RootWrites, RootSyncs               int64
	LabelWrites, LabelSyncs             int64
	DataFlushes, MetadataFlushes, Forks int64
}

func (l *kernelLab) costs(c *counter, data, metadata kernelDisk) costs {
	l.Helper()
	dataFlushes, err := data.Flushes()
	l.must(err)
	metadataFlushes, err := metadata.Flushes()
	l.must(err)
	stat, err := os.ReadFile("/proc/stat")
	l.must(err)
	_, processes, _ := strings.Cut(string(stat), "processes ")
	var forks int64
	_, err = fmt.Sscan(processes, &forks)
	l.must(err)
	return costs{
		c.probes.Load(), c.messages.Load(), c.statuses.Load(), c.others.Load(),
		c.rootWrites.Load(), c.rootSyncs.Load(), c.labelWrites.Load(), c.labelSyncs.Load(),
		int64(dataFlushes), int64(metadataFlushes), forks,
	}
}

func (a costs) minus(b costs) costs {
	return costs{
		a.Probes - b.Probes, a.Messages - b.Messages, a.Statuses - b.Statuses, a.Others - b.Others,
		a.RootWrites - b.RootWrites, a.RootSyncs - b.RootSyncs, a.LabelWrites - b.LabelWrites, a.LabelSyncs - b.LabelSyncs,
		a.DataFlushes - b.DataFlushes, a.MetadataFlushes - b.MetadataFlushes, a.Forks - b.Forks,
	}
}

// What each verb costs, counted. A flush is what takes time on a disk: a create has
// one of the journal and three of the pool's commit, and the label rides for nothing.
func TestKernelCosts(t *testing.T) {
	l := newKernelLab(t)
	data, metadata, options := l.onDisks(1024*mib, 16*mib)
	host, err := deviceset.ThisMachine()
	l.must(err)
	c := &counter{Host: host}
	s, err := deviceset.OpenQuiet(c, l.root, 8*mib, options...)
	l.must(err)
	l.shutAtEnd(s)
	l.blank(s, "origin", 8*mib)
	l.put(s, "origin", 1)

	const n = 50
	for _, test := range []struct {
		name string
		do   func(i int) error
		want costs
	}{
		{
			"create", func(i int) error { return s.CreateDevice(fmt.Sprint("a", i), "", newBlank) },
			costs{Probes: n, Messages: n, Statuses: n, RootWrites: n, RootSyncs: n, LabelWrites: n, DataFlushes: n, MetadataFlushes: 2 * n},
		},
		{
			"create again", func(i int) error { return s.CreateDevice(fmt.Sprint("a", i), "", newBlank) },
			costs{},
		},
		{
			"snapshot", func(i int) error { return s.AddDevice(fmt.Sprint("b", i), "origin", nil) },
			// Others: the origin is looked for, twice, and not found to be active.
			costs{Probes: n, Messages: n, Statuses: n, Others: 2 * n, RootWrites: n, RootSyncs: n, LabelWrites: n, DataFlushes: n, MetadataFlushes: 2 * n},
		},
		{
			"delete", func(i int) error { return s.DeleteDevice(fmt.Sprint("b", i), true) },
			// Others: the device is removed, had it been active, before the note and after.
			costs{Messages: n, Statuses: n, Others: 2 * n, RootWrites: n, RootSyncs: n, LabelWrites: n, DataFlushes: n, MetadataFlushes: 2 * n},
		},
	} {
		before := l.costs(c, data, metadata)
		for i := range n {
			l.must(test.do(i))
		}
		have := l.costs(c, data, metadata).minus(before)
		have.Forks -= have.Forks % n // threads, of this process and of the kernel, count too
		if have != test.want {
			t.Errorf("%d times %s:\nhave %+v\nwant %+v", n, test.name, have, test.want)
		}
	}
}

// Verbs that come at the same time share their syncs, where a sync takes as long as on
// a disk.
func TestKernelCostsAreShared(t *testing.T) {
	l := newKernelLab(t)
	data, metadata, options := l.onDisks(1024*mib, 16*mib)
	host, err := deviceset.ThisMachine()
	l.must(err)
	c := &counter{Host: host, latency: 2 * time.Millisecond}
	s, err := deviceset.OpenQuiet(c, l.root, 8*mib, options...)
	l.must(err)
	l.shutAtEnd(s)
	const workers, each = 16, 20
	before := l.costs(c, data, metadata)
	var wait sync.WaitGroup
	for worker := range workers {
		wait.Go(func() {
			for i := range each {
				if err := s.CreateDevice(fmt.Sprintf("a%d-%d", worker, i), "", newBlank); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	have := l.costs(c, data, metadata).minus(before)
	t.Logf("%d creates by %d: %+v", workers*each, workers, have)
	if have.RootSyncs > workers*each/4 || have.LabelWrites != have.RootSyncs || have.LabelSyncs != 0 {
		t.Errorf("%d creates: %+v", workers*each, have)
	}
	if have.DataFlushes > workers*each || have.MetadataFlushes > 2*workers*each {
		t.Errorf("%d creates: %+v", workers*each, have)
	}
}
