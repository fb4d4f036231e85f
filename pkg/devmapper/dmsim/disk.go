package dmsim

import (
	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// pageSize is how much of a write reaches a disk as a whole, in bytes.
const pageSize = 4096

type page = [pageSize]byte

// storage is a disk, or a dm device with a table: what a table can lie on.
// Offsets and lengths are in bytes.
type storage interface {
	read(at int64, b []byte) error
	write(at int64, b []byte) error
	discard(at, length int64) error
	flush() error
	size() dm.Sectors
	open()
	close()
	claimed() *claim
}

// A Disk keeps what was flushed, and what was only written until the power is
// cut.
type Disk struct {
	claim
	kernel      *Kernel
	dev         dm.DevNo
	sectors     dm.Sectors
	durable     map[int64]*page
	written     map[int64]*page // since the last flush
	order       []int64         // of the pages of written, by first write
	flushes     int
	failsReads  bool
	failsWrites bool
	metadata    *metadata // of the pool that wrote super
	super       *page     // the first page, as that pool wrote it last
}

// NewDisk adds a disk that reads as zeros.
func (k *Kernel) NewDisk(size dm.Sectors) *Disk {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := &Disk{
		kernel: k, sectors: size, dev: dm.MakeDevNo(DiskMajor, uint32(len(k.disks))),
		durable: map[int64]*page{}, written: map[int64]*page{},
	}
	k.disks = append(k.disks, d)
	return d
}

// Disk returns the disk of that number, or nil. A clone's disks are not those of
// the machine that it was cloned from, but have their numbers.
func (k *Kernel) Disk(dev dm.DevNo) *Disk {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.disk(dev)
}

func (k *Kernel) disk(dev dm.DevNo) *Disk {
	if minor := int(dev.Minor()); dev.Major() == DiskMajor && minor < len(k.disks) {
		return k.disks[minor]
	}
	return nil
}

// Dev returns the disk's device number.
func (d *Disk) Dev() dm.DevNo { return d.dev }

// Grow makes the disk larger; it never becomes smaller.
func (d *Disk) Grow(size dm.Sectors) {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	d.sectors = max(d.sectors, size)
}

// Fail lets reads, or writes, discards and flushes, answer EIO from now on, as a
// dying disk does: beneath all tables, and whether or not a pool is open. With
// false they work again.
func (d *Disk) Fail(reads, writes bool) {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	d.failsReads, d.failsWrites = reads, writes
}

// Flushes returns how often the disk was flushed.
func (d *Disk) Flushes() int {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	return d.flushes
}

// Size returns how large the disk is.
func (d *Disk) Size() dm.Sectors {
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	return d.sectors
}

func (d *Disk) size() dm.Sectors { return d.sectors }
func (d *Disk) open()            {}
func (d *Disk) close()           {}

// pages calls do for each page that an I/O touches, with the part of it.
func pages(at int64, b []byte, do func(number int64, offset int, part []byte)) {
	for len(b) > 0 {
		offset := int(at % pageSize)
		n := min(pageSize-offset, len(b))
		do(at/pageSize, offset, b[:n])
		at, b = at+int64(n), b[n:]
	}
}

func (d *Disk) fits(at, length int64) bool {
	return at >= 0 && length >= 0 && at+length <= d.sectors.Bytes()
}

func (d *Disk) read(at int64, b []byte) error {
	if d.failsReads || !d.fits(at, int64(len(b))) {
		return unix.EIO
	}
	pages(at, b, func(number int64, offset int, part []byte) {
		if p := d.page(number); p != nil {
			copy(part, p[offset:])
		} else {
			clear(part)
		}
	})
	return nil
}

// page returns what reads find, nil for zeros.
func (d *Disk) page(number int64) *page {
	if p, ok := d.written[number]; ok {
		return p
	}
	return d.durable[number]
}

func (d *Disk) write(at int64, b []byte) error {
	if d.failsWrites || !d.fits(at, int64(len(b))) {
		return unix.EIO
	}
	pages(at, b, func(number int64, offset int, part []byte) {
		p := new(page)
		if old := d.page(number); old != nil {
			*p = *old
		}
		copy(p[offset:], part)
		if _, ok := d.written[number]; !ok {
			d.order = append(d.order, number)
		}
		d.written[number] = p
	})
	return nil
}

// committing returns the metadata that the disk holds, nil if there is none:
// whoever writes over a superblock ends its pool. It is as of the last commit once
// it is rolled back.
func (d *Disk) committing() *metadata {
	if p := d.page(0); p != nil && p == d.super {
		return d.metadata
	}
	return nil
}

// discard reads as zeros from then on, like a hole in a sparse file.
func (d *Disk) discard(at, length int64) error {
	return d.write(at, make([]byte, length))
}

func (d *Disk) flush() error {
	if d.failsWrites {
		return unix.EIO
	}
	d.flushes++
	d.keep(func(int64) bool { return true })
	return nil
}

// keep makes durable those of the written pages that keep chooses, and forgets
// the others.
func (d *Disk) keep(keep func(number int64) bool) {
	if len(d.order) == 0 {
		return
	}
	for _, number := range d.order {
		if keep(number) {
			d.durable[number] = d.written[number]
		}
	}
	clear(d.written)
	d.order = d.order[:0]
}

// storage returns what has a device number, or nil.
func (k *Kernel) storage(dev dm.DevNo) storage {
	if d := k.disk(dev); d != nil {
		return d
	}
	if minor := int(dev.Minor()); dev.Major() == Major && minor < len(k.devices) && k.devices[minor] != nil {
		return k.devices[minor]
	}
	return nil
}

// A dm device does I/O by its live table, and holds it back while suspended.

func (d *device) size() dm.Sectors {
	if d.live == nil {
		return 0
	}
	return d.live.length()
}

func (d *device) read(at int64, b []byte) error {
	d.ready()
	return d.live.each(at, int64(len(b)), func(t target, at, from, to int64) error {
		return t.read(at, b[from:to])
	})
}

func (d *device) write(at int64, b []byte) error {
	if d.readOnly {
		return unix.EPERM
	}
	d.ready()
	return d.live.each(at, int64(len(b)), func(t target, at, from, to int64) error {
		return t.write(at, b[from:to])
	})
}

func (d *device) discard(at, length int64) error {
	d.ready()
	return d.live.each(at, length, func(t target, at, from, to int64) error {
		return t.discard(at, to-from)
	})
}

func (d *device) flush() error {
	d.ready()
	if d.live == nil {
		return nil
	}
	for _, s := range d.live.segments {
		if err := s.target.flush(); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until d is not suspended.
func (d *device) ready() {
	for d.suspended && !d.removed {
		d.kernel.changed.Wait()
	}
}
