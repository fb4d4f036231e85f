package dmtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Sizes that stories use unless they say otherwise.
const (
	kib       dm.Sectors = 2
	mib                  = 1024 * kib
	blockSize            = 64 * kib
	dataSize             = 16 * mib // 256 blocks
	metaSize             = 2 * mib  // 512 metadata blocks
	thinSize             = 8 * mib
	smallData            = 8 * blockSize
)

// A lab is where a story is told: a machine, and helpers that fail the test
// instead of returning errors.
type lab struct {
	testing.TB
	Machine
	kernel dm.Watcher
	names  int
}

func newLab(t testing.TB, m Machine) *lab {
	return &lab{TB: t, Machine: m, kernel: m.Kernel()}
}

// name returns a device name that this test has not used before.
func (l *lab) name(what string) string {
	l.names++
	return fmt.Sprintf("dmtest-%s-%d", what, l.names)
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// refused fails unless err is the cause given.
func (l *lab) refused(err, cause error) {
	l.Helper()
	if !errors.Is(err, cause) {
		l.Fatalf("error is %v, want %v", err, cause)
	}
}

func (l *lab) equal(have, want any) {
	l.Helper()
	if fmt.Sprintf("%#v", have) != fmt.Sprintf("%#v", want) {
		l.Fatalf("have %v, want %v", have, want)
	}
}

func (l *lab) disk(size dm.Sectors) Disk {
	l.Helper()
	d, err := l.NewDisk(size)
	l.must(err)
	l.Cleanup(func() { l.must(d.Close()) })
	return d
}

// device activates a device that is removed at the end of the story, unless the
// story has removed it.
func (l *lab) device(what, uuid string, table dm.Table) dm.Device {
	l.Helper()
	d, err := dm.Activate(l.kernel, l.name(what), uuid, table)
	l.must(err)
	l.removeAtEnd(d)
	return d
}

// removeAtEnd removes a device at the end of the story, if it is still there.
func (l *lab) removeAtEnd(d dm.Device) {
	l.Cleanup(func() {
		if _, err := d.Info(); err == nil {
			l.must(d.Remove())
		}
	})
}

func (l *lab) info(d dm.Device) dm.Info {
	l.Helper()
	info, err := d.Info()
	l.must(err)
	return info
}

// A pool is a thin-pool with its disks. Metadata lies on a flakey device, so
// that a story can make it fail.
type pool struct {
	dm.Pool
	lab        *lab
	meta, data Disk
	flakey     dm.Device
	table      dm.ThinPool
	length     dm.Sectors
}

// pool makes a pool of the default sizes.
func (l *lab) pool(options ...func(*dm.ThinPool)) *pool {
	l.Helper()
	return l.poolOn(l.disk(metaSize), l.disk(dataSize), dataSize, options...)
}

// smallPool makes a pool that is soon full.
func (l *lab) smallPool() *pool {
	l.Helper()
	return l.poolOn(l.disk(metaSize), l.disk(smallData), smallData)
}

func (l *lab) poolOn(meta, data Disk, length dm.Sectors, options ...func(*dm.ThinPool)) *pool {
	l.Helper()
	p := &pool{lab: l, meta: meta, data: data, length: length}
	p.flakey = l.device("meta", "", p.wellTable(metaSize))
	p.table = dm.ThinPool{Metadata: l.info(p.flakey).Dev, Data: data.Dev(), BlockSize: blockSize, ErrorIfNoSpace: true}
	for _, option := range options {
		option(&p.table)
	}
	p.Pool = dm.Pool{Device: l.device("pool", "", dm.Whole(length, p.table))}
	return p
}

// reopen closes the pool and opens it again from its disks.
func (p *pool) reopen() {
	p.lab.Helper()
	p.lab.must(p.Remove())
	p.Pool = dm.Pool{Device: p.lab.device("pool", "", dm.Whole(p.length, p.table))}
}

// reboot opens the pool after a power cut.
func (p *pool) reboot() {
	p.lab.Helper()
	p.lab.must(p.lab.PowerCut())
	p.flakey = p.lab.device("meta", "", p.wellTable(metaSize))
	p.table.Metadata = p.lab.info(p.flakey).Dev
	p.Pool = dm.Pool{Device: p.lab.device("pool", "", dm.Whole(p.length, p.table))}
}

func (p *pool) wellTable(size dm.Sectors) dm.Table {
	return dm.Whole(size, Well(dm.Linear{Dev: p.meta.Dev()}))
}

// metadataFails lets the metadata device do what features say; without any, all
// its I/O fails.
func (p *pool) metadataFails(features ...string) {
	p.lab.Helper()
	p.lab.must(p.flakey.Swap(dm.Whole(metaSize, Ill(dm.Linear{Dev: p.meta.Dev()}, features...)), dm.SkipLockFS|dm.NoFlush))
}

func (p *pool) metadataWorks() {
	p.lab.Helper()
	p.lab.must(p.flakey.Swap(p.wellTable(metaSize), dm.SkipLockFS|dm.NoFlush))
}

func (p *pool) status() dm.PoolStatus {
	p.lab.Helper()
	s, err := p.PoolStatus()
	p.lab.must(err)
	return s
}

// flushes counts what has reached the two disks.
func (p *pool) flushes() (meta, data int) {
	p.lab.Helper()
	meta, err := p.meta.Flushes()
	p.lab.must(err)
	data, err = p.data.Flushes()
	p.lab.must(err)
	return meta, data
}

func (p *pool) thinTable(id dm.DeviceID) dm.Table {
	p.lab.Helper()
	return dm.Whole(thinSize, dm.Thin{Pool: p.lab.info(p.Device).Dev, ID: id})
}

// create makes thin devices and leaves them inactive.
func (p *pool) create(ids ...dm.DeviceID) {
	p.lab.Helper()
	for _, id := range ids {
		p.lab.must(p.CreateThin(id))
	}
}

func (p *pool) has(id dm.DeviceID) bool {
	p.lab.Helper()
	has, err := p.Has(id)
	p.lab.must(err)
	return has
}

// A volume is an active thin device, open.
type volume struct {
	dm.Device
	File
	lab *lab
}

// volume makes a pool with one thin device, and opens it.
func (l *lab) volume() (*pool, *volume) {
	l.Helper()
	return l.volumeOf(l.pool())
}

func (l *lab) volumeOf(p *pool) (*pool, *volume) {
	l.Helper()
	p.create(1)
	return p, p.open(1)
}

// open activates a thin device.
func (p *pool) open(id dm.DeviceID) *volume {
	p.lab.Helper()
	return p.lab.openDevice(p.lab.device("thin", "", p.thinTable(id)))
}

func (l *lab) openDevice(d dm.Device) *volume {
	l.Helper()
	f, err := l.Open(l.info(d))
	l.must(err)
	return l.opened(d, f)
}

func (l *lab) openExclusive(d dm.Device) *volume {
	l.Helper()
	f, err := l.OpenExclusive(l.info(d))
	l.must(err)
	return l.opened(d, f)
}

// opened closes f at the end of the story.
func (l *lab) opened(d dm.Device, f File) *volume {
	v := &volume{Device: d, File: f, lab: l}
	l.Cleanup(func() { l.must(v.Close()) })
	return v
}

// Close closes the device; again is no error.
func (v *volume) Close() error {
	if v.File == nil {
		return nil
	}
	err := v.File.Close()
	v.File = nil
	return err
}

// deactivate closes and removes the device.
func (v *volume) deactivate() {
	v.lab.Helper()
	v.lab.must(v.Close())
	v.lab.must(v.Remove())
}

// pattern is a block of bytes that no other seed gives.
func pattern(seed uint64) []byte {
	b := make([]byte, blockSize.Bytes())
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = random.Read(b) // never fails
	return b
}

// offset is where a block begins, in bytes.
func offset(block int) int64 { return int64(block) * blockSize.Bytes() }

// writeBlock writes a whole block.
func (v *volume) writeBlock(block int, seed uint64) {
	v.lab.Helper()
	v.lab.must(v.tryWrite(block, seed))
}

func (v *volume) tryWrite(block int, seed uint64) error {
	_, err := v.WriteAt(pattern(seed), offset(block))
	return err
}

// wantBlock fails unless a block reads as it was written.
func (v *volume) wantBlock(block int, seed uint64) {
	v.lab.Helper()
	v.wantBytes(offset(block), pattern(seed))
}

func (v *volume) wantBytes(at int64, want []byte) {
	v.lab.Helper()
	have := make([]byte, len(want))
	_, err := v.ReadAt(have, at)
	v.lab.must(err)
	if !bytes.Equal(have, want) {
		v.lab.Fatalf("%d bytes at %d differ from what was written there", len(want), at)
	}
}

func (v *volume) thinStatus() dm.ThinStatus {
	v.lab.Helper()
	s, err := v.ThinStatus()
	v.lab.must(err)
	return s
}
