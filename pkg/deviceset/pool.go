package deviceset

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A pool is a thin-pool with what it lies on.
type pool struct {
	dm.Pool
	kernel    dm.Kernel
	prefix    string // of all dm names
	uuid      string
	existing  bool // somebody else's table: neither reloaded nor removed
	features  dm.ThinPool
	decided   func(Rule)
	dev       dm.DevNo // of the pool's own device
	data      Disk     // nil if existing
	metadata  Disk     // nil if existing
	metaDev   dm.DevNo // what Metadata reads
	linear    dm.Device
	blockSize dm.Sectors

	// change is held for reading by whoever changes the pool by a message or writes to
	// the label, and for writing by its growth: a suspended pool takes messages, and
	// commits nothing.
	change sync.RWMutex

	mu   sync.Mutex
	last dm.PoolStatus
	when time.Time // last was read
}

// UUIDPrefix begins the UUIDs of our devices: the first word of one is its owner, as
// dm's users agree.
const UUIDPrefix = "CSI-DMTHIN-"

// A dm UUID is the kernel's own lock against having one thing twice, and what a
// start knows its devices by.
func (p *pool) dmUUID(what string) string { return UUIDPrefix + p.uuid + "-" + what }

func (p *pool) dmName(what string) string { return fmt.Sprintf("%s-%.8s-%s", p.prefix, p.uuid, what) }

func thinSuffix(id dm.DeviceID) string { return fmt.Sprint(uint32(id)) }

// thin returns the device of a thin, which need not be active.
func (p *pool) thin(id dm.DeviceID) dm.Device { return dm.ByUUID(p.kernel, p.dmUUID(thinSuffix(id))) }

func (p *pool) thinTable(id dm.DeviceID, size int64) dm.Table {
	return dm.Whole(dm.SectorsIn(size), dm.Thin{Pool: p.dev, ID: id})
}

// What suspending a pool or what lies below it must not do: wait for I/O that
// waits for the pool, or look for a file system.
const quickly = dm.SkipLockFS | dm.NoFlush

// table returns the pool's table for a data device of that size, in whole blocks.
func (p *pool) table(dataSize int64) dm.Table {
	t := p.features
	t.BlockSize = p.blockSize
	length := dm.SectorsIn(dataSize) / p.blockSize * p.blockSize
	t.LowWater = uint64(length/p.blockSize) / lowWaterPart
	return dm.Whole(length, t)
}

// lowWaterPart is the part of a pool below which the kernel raises its event.
const lowWaterPart = 10

// status returns the pool's status. It may be as old as atMost.
func (p *pool) status(atMost time.Duration) (dm.PoolStatus, error) {
	p.mu.Lock()
	last, when := p.last, p.when
	p.mu.Unlock()
	if !when.IsZero() && time.Since(when) < atMost {
		return last, nil
	}
	return p.PoolStatus()
}

// observed is a kernel that notes the pool's status whenever anybody asks for it.
type observed struct {
	dm.Watcher
	pool *pool
}

func (o *observed) Do(r dm.Request) (dm.Reply, error) {
	reply, err := o.Watcher.Do(r)
	if r.Command == dm.TableStatus && r.Flags&dm.StatusTable == 0 && err == nil && len(reply.Lines) == 1 {
		o.pool.note(reply)
	}
	return reply, err
}

func (p *pool) note(reply dm.Reply) {
	if reply.Dev != p.dev || reply.Lines[0].Type != (dm.ThinPool{}).TargetType() {
		return
	}
	status, err := dm.ParsePoolStatus(reply.Lines[0].Params)
	if err != nil {
		return // whoever asked is told
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.when = status, time.Now()
}

// forget makes the next status a new one.
func (p *pool) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.when = time.Time{}
}

// changed sends a message while the pool is not being grown.
func (p *pool) changed(message func() error) error {
	p.change.RLock()
	defer p.change.RUnlock()
	return message()
}

// running loads a table that lies on the pool. A pool that is being grown refuses
// that with EINVAL, as it does a table that is wrong (drivers/md/dm-thin.c:
// thin_ctr), so then it is tried once more when the growth is over. Only then is a
// lock held over it, since a thin may take long.
func (p *pool) running(load func() error) error {
	err := load()
	if errors.Is(err, unix.EINVAL) {
		err = p.changed(load)
	}
	return err
}

// tidy brings the pool's devices into order, those first that others lie on: what
// a process that died had loaded but not resumed is dropped, what it had suspended
// is resumed, and what has no table goes. A table left in the inactive slot would
// be swapped in by the next resume.
func (p *pool) tidy() error {
	devices, err := dm.List(p.kernel, "", UUIDPrefix+p.uuid+"-")
	if err != nil {
		return err
	}
	var below, thins []string
	for _, d := range devices {
		switch strings.TrimPrefix(d.UUID, UUIDPrefix+p.uuid+"-") {
		case metaSuffix:
			below = append([]string{d.UUID}, below...)
		case poolSuffix:
			below = append(below, d.UUID)
		default:
			thins = append(thins, d.UUID)
		}
	}
	if p.existing { // its own UUID is not ours
		if err := p.settleDevice(p.Device); err != nil {
			return err
		}
	}
	var errs error
	for _, uuid := range append(below, thins...) {
		errs = errors.Join(errs, p.settleDevice(dm.ByUUID(p.kernel, uuid)))
	}
	return errs
}

const (
	metaSuffix = "meta"
	poolSuffix = "pool"
)

func (p *pool) settleDevice(d dm.Device) error {
	info, err := d.Info()
	if errors.Is(err, unix.ENXIO) {
		return nil // it was to be removed when last closed, and was
	}
	if err != nil {
		return err
	}
	if info.Inactive() {
		p.decided(RuleInactive)
		if err := d.ClearInactive(); err != nil {
			return err
		}
	}
	switch {
	case !info.Active():
		p.decided(RuleNoTable)
		return d.Remove()
	case info.Suspended():
		p.decided(RuleSuspended)
		return d.Resume()
	}
	return nil
}

// remove takes the pool's own devices down, which it knows by their UUIDs: a name
// may be somebody else's. EBUSY means that a thin is active.
func (p *pool) remove() error {
	for _, what := range []string{poolSuffix, metaSuffix} {
		if err := ignoring(dm.ByUUID(p.kernel, p.dmUUID(what)).Remove(), unix.ENXIO); err != nil {
			return err
		}
	}
	return nil
}

// ignoring returns nil in place of an error that is expected.
func ignoring(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func (p *pool) closeDisks() (err error) {
	for _, d := range []Disk{p.data, p.metadata} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	return err
}
