package dmsim

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// superblockMagic opens the only metadata block that a disk shows to readers.
const superblockMagic = 27022010

// heldRoot is where a held metadata snapshot is said to lie.
const heldRoot = 10

// A poolMode is more than a status line tells: out of metadata prints as ro.
type poolMode int

const (
	modeWrite poolMode = iota
	modeOutOfData
	modeOutOfMetadata
	modeReadOnly
	modeFail
)

// A pool is a thin-pool at work (drivers/md/dm-thin.c: struct pool). Tables come
// and go; it lives from its first table's load to its last one's end.
type pool struct {
	kernel    *Kernel
	device    *device
	meta      *metadata
	metaStore storage
	dataStore storage
	metaDev   dm.DevNo
	dataDev   dm.DevNo
	disk      *Disk // at the bottom of metaStore
	options   dm.ThinPool
	mode      poolMode
	suspended bool
	lowWater  bool // its event has been raised since the last resume
	inService bool // something has changed since the pool was opened
	check     bool // the metadata needs a check
	tables    int
	open      map[dm.DeviceID]int // by thin tables
}

// poolTarget is a pool as one table has it.
type poolTarget struct {
	*pool
	conf   dm.ThinPool
	length dm.Sectors
}

// newPool opens the pool of p, or finds it open already.
func (k *Kernel) newPool(d *device, t *table, p dm.ThinPool, length dm.Sectors) (target, error) {
	if p.BlockSize < dm.MinBlockSize || p.BlockSize > dm.MaxBlockSize || p.BlockSize%dm.MinBlockSize != 0 {
		return nil, unix.EINVAL
	}
	metaStore, err := k.hold(t, p.Metadata)
	if err != nil {
		return nil, err
	}
	dataStore, err := k.hold(t, p.Data)
	if err != nil {
		return nil, err
	}
	live, err := k.findPool(d, p)
	if err != nil {
		return nil, err
	}
	if live == nil {
		live = &pool{
			kernel: k, device: d, metaStore: metaStore, dataStore: dataStore, metaDev: p.Metadata, dataDev: p.Data,
			disk: diskBelow(metaStore), suspended: true, open: map[dm.DeviceID]int{},
		}
		if err := live.openMetadata(p); err != nil {
			return nil, err
		}
		d.pool = live
	}
	live.tables++
	return &poolTarget{live, p, length}, nil
}

// findPool returns the pool that d has already. Two pools on one metadata device
// are refused, and so is another device under a living pool.
func (k *Kernel) findPool(d *device, p dm.ThinPool) (*pool, error) {
	for _, other := range k.devices {
		if other != nil && other != d && other.pool != nil && other.pool.metaDev == p.Metadata {
			return nil, unix.EBUSY
		}
	}
	if d.pool != nil && (d.pool.metaDev != p.Metadata || d.pool.dataDev != p.Data) {
		if d.pool.metaDev == p.Metadata {
			return nil, unix.EBUSY
		}
		return nil, unix.EINVAL
	}
	return d.pool, nil
}

// diskBelow returns the disk that a store lies on from its first sector on.
func diskBelow(s storage) *Disk {
	d, ok := s.(*device)
	if !ok {
		return s.(*Disk)
	}
	if d.live == nil {
		return nil
	}
	switch t := d.live.segments[0].target.(type) {
	case linear:
		return t.disk()
	case flakey:
		return t.disk()
	}
	return nil
}

// disk returns nil for what does not begin where the disk does: a disk knows of
// one pool only, at its begin.
func (l linear) disk() *Disk {
	if l.start != 0 {
		return nil
	}
	return diskBelow(l.below)
}

// openMetadata reads the metadata, and formats a device that begins with zeros.
func (p *pool) openMetadata(conf dm.ThinPool) error {
	var first page
	if err := p.metaStore.read(0, first[:]); err != nil {
		return err
	}
	switch {
	case p.disk == nil:
		return unix.EIO
	case first == page{}:
		p.meta = newMetadata(conf.BlockSize, uint64(p.metaStore.size()/dm.MetadataBlockSize))
		p.inService = true
		return p.writeMetadata()
	case p.disk.committing() == nil:
		return unix.EILSEQ
	case p.disk.metadata.blockSize != conf.BlockSize:
		return unix.EINVAL
	}
	p.meta, p.check = p.disk.metadata, p.disk.metadata.needsCheck
	return nil
}

// writeMetadata is the commit of what is in memory: data, metadata, superblock,
// and none of them before the one that precedes it is durable.
func (p *pool) writeMetadata() error {
	if err := p.dataStore.flush(); err != nil {
		return err
	}
	if err := p.metaStore.flush(); err != nil {
		return err
	}
	landed, err := p.writeSuperblock()
	if err != nil {
		return err
	}
	if landed {
		p.disk.metadata = p.meta
	} else if p.disk.metadata == p.meta { // a disk that drops writes keeps the last commit
		p.disk.metadata = p.meta.committed()
	}
	p.meta.settle()
	return nil
}

// writeSuperblock writes the first block, of which the simulator has the magic
// and the transaction id alone, and tells whether it reached the disk.
func (p *pool) writeSuperblock() (landed bool, err error) {
	var super page
	binary.LittleEndian.PutUint64(super[32:], superblockMagic)
	binary.LittleEndian.PutUint64(super[48:], p.meta.transactionID)
	before := p.disk.page(0)
	if err := p.metaStore.write(0, super[:]); err != nil {
		return false, err
	}
	found := p.disk.page(0)
	if landed = found != before; landed {
		p.disk.super = found
	}
	return landed, p.metaStore.flush()
}

// commit makes the metadata durable. A pool whose commit fails goes back to the
// last one and changes no more (drivers/md/dm-thin.c: commit,
// metadata_operation_failed).
func (p *pool) commit() {
	if p.mode >= modeOutOfMetadata || !p.inService {
		return
	}
	if err := p.writeMetadata(); err != nil {
		p.abort()
		return
	}
	if p.meta.usage().Free() == 0 {
		p.setMode(modeOutOfMetadata)
	} else if p.mode == modeOutOfData && p.meta.dataUsage().Free() > 0 {
		p.setMode(modeWrite)
	}
}

func (p *pool) abort() {
	var first page
	err := p.metaStore.read(0, first[:])
	committed := p.disk.committing()
	if committed != nil {
		p.meta = committed
		p.meta.rollback() // also if it cannot be read now: another pool may open it
	}
	if err != nil || committed == nil {
		p.setMode(modeFail)
		return
	}
	p.check = true
	p.setMode(modeReadOnly)
}

// setMode changes the mode as far as it may: a failed pool stays so, and one that
// needs a check never becomes writable.
func (p *pool) setMode(mode poolMode) {
	if p.mode == modeFail {
		return
	}
	if mode == modeWrite && p.check {
		mode = modeReadOnly
	}
	if p.mode != mode {
		p.mode = mode
		p.device.event()
	}
}

func (t *poolTarget) fits(length dm.Sectors) bool { return length <= t.dataStore.size() }

// start takes over the table's options and sizes (drivers/md/dm-thin.c:
// pool_preresume).
func (t *poolTarget) start() error {
	p := t.pool
	p.options = t.conf
	if t.conf.ReadOnly {
		p.setMode(modeReadOnly)
	} else {
		p.setMode(modeWrite)
	}
	if err := t.resize(); err != nil {
		return err
	}
	p.suspended, p.lowWater = false, false
	p.device.event()
	return nil
}

// resize grows what has grown: EINVAL if something has shrunk. A pool that needs
// a check ignores it.
func (t *poolTarget) resize() error {
	p := t.pool
	data := uint64(t.length / t.conf.BlockSize)
	meta := uint64(min(p.metaStore.size(), dm.MaxMetadataSize) / dm.MetadataBlockSize)
	if data < p.meta.dataBlocks || meta < p.meta.blocks {
		return unix.EINVAL
	}
	if data == p.meta.dataBlocks && meta == p.meta.blocks || p.check {
		return nil
	}
	p.meta.resize(data, meta)
	p.inService = true
	p.commit()
	return nil
}

// suspended commits what is open.
func (t *poolTarget) suspended() {
	t.commit()
	t.pool.suspended = true
}

func (t *poolTarget) close() {
	p := t.pool
	if p.tables--; p.tables > 0 {
		return
	}
	p.commit()
	if p.check {
		if landed, err := p.writeSuperblock(); err == nil && landed {
			p.disk.metadata.needsCheck = true // the flag is written last, if it can be
		}
	}
	p.device.pool = nil
}

func (t *poolTarget) status() string {
	p := t.pool
	s := dm.PoolStatus{Mode: dm.PoolFail}
	if p.mode == modeFail {
		return s.String()
	}
	s = dm.PoolStatus{
		TransactionID: p.meta.transactionID, Metadata: p.meta.usage(), Data: p.meta.dataUsage(),
		ErrorIfNoSpace: p.options.ErrorIfNoSpace, NeedsCheck: p.check,
		MetadataLowWater: min(1024, p.meta.blocks/4),
		Mode: map[poolMode]dm.PoolMode{
			modeOutOfData: dm.PoolOutOfDataSpace, modeOutOfMetadata: dm.PoolReadOnly, modeReadOnly: dm.PoolReadOnly,
		}[p.mode],
	}
	if p.meta.held {
		s.HeldRoot = heldRoot
	}
	switch {
	case p.options.IgnoreDiscard:
		s.Discard = dm.IgnoreDiscard
	case p.options.NoDiscardPassdown:
		s.Discard = dm.NoDiscardPassdown
	}
	return s.String()
}

// message changes the metadata and commits; what becomes of the commit, the
// sender is not told (drivers/md/dm-thin.c: pool_message).
func (t *poolTarget) message(words []string) error {
	p := t.pool
	if p.mode >= modeOutOfMetadata {
		return unix.EOPNOTSUPP
	}
	if err := p.change(words[0], words[1:]); err != nil {
		return err
	}
	p.inService = true
	p.commit()
	return nil
}

func (p *pool) change(verb string, args []string) error {
	numbers := make([]uint64, len(args))
	for i, a := range args {
		var err error
		if numbers[i], err = strconv.ParseUint(a, 10, 64); err != nil {
			return unix.EINVAL
		}
	}
	switch verb + strconv.Itoa(len(args)) {
	case "create_thin1":
		return byIDs(numbers, func(id []dm.DeviceID) error { return p.meta.createThin(id[0]) })
	case "create_snap2":
		return byIDs(numbers, func(id []dm.DeviceID) error { return p.meta.createSnap(id[0], id[1]) })
	case "delete1":
		return byIDs(numbers, func(id []dm.DeviceID) error {
			if p.open[id[0]] > 0 {
				return unix.EBUSY
			}
			return p.meta.delete(id[0])
		})
	case "set_transaction_id2":
		return p.meta.setTransactionID(numbers[0], numbers[1])
	case "reserve_metadata_snap0":
		if p.meta.held {
			return unix.EBUSY
		}
		if p.commit(); p.mode >= modeOutOfMetadata {
			return unix.EPERM
		}
		p.meta.hold()
		return nil
	case "release_metadata_snap0":
		if !p.meta.held {
			return unix.EINVAL
		}
		p.meta.release()
		return nil
	}
	return unix.EINVAL
}

// byIDs refuses ids of more than 24 bits.
func byIDs(numbers []uint64, do func([]dm.DeviceID) error) error {
	ids := make([]dm.DeviceID, len(numbers))
	for i, n := range numbers {
		if n > uint64(dm.MaxDeviceID) {
			return unix.EINVAL
		}
		ids[i] = dm.DeviceID(n)
	}
	return do(ids)
}

// A pool's own device reads and writes the data device.

func (t *poolTarget) read(at int64, b []byte) error        { return t.dataStore.read(at, b) }
func (t *poolTarget) write(at int64, b []byte) error       { return t.dataStore.write(at, b) }
func (t *poolTarget) discard(at int64, length int64) error { return t.dataStore.discard(at, length) }
func (t *poolTarget) flush() error                         { return t.dataStore.flush() }
