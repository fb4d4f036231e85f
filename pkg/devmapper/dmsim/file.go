package dmsim

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A File is a disk or dm device, open for I/O in whole sectors. That of a disk
// syncs this disk and no other.
type File struct {
	kernel    *Kernel
	store     storage
	number    uint64 // of the opens of its machine
	exclusive bool
}

// Open opens a disk or dm device: ENXIO if there is none.
func (k *Kernel) Open(dev dm.DevNo) (*File, error) { return k.open(dev, false) }

// OpenExclusive opens a disk or dm device as O_EXCL does: EBUSY if a table lies on
// it, be it only an inactive one, or if it is open exclusively already. Until it
// is closed, a table over it is EBUSY too.
func (k *Kernel) OpenExclusive(dev dm.DevNo) (*File, error) { return k.open(dev, true) }

func (k *Kernel) open(dev dm.DevNo, exclusive bool) (*File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	store := k.storage(dev)
	if store == nil {
		return nil, unix.ENXIO
	}
	if exclusive {
		if err := store.claimed().byFile(); err != nil {
			return nil, err
		}
	}
	store.open()
	f := &File{kernel: k, store: store, number: k.opened, exclusive: exclusive}
	k.files[f.number] = f
	k.opened++
	return f, nil
}

// do runs one I/O: EBADF after Close, EINVAL if it is not of whole sectors.
func (f *File) do(at, length int64, io func(storage) error) error {
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	if f.store == nil {
		return unix.EBADF
	}
	if at%dm.SectorSize != 0 || length%dm.SectorSize != 0 {
		return unix.EINVAL
	}
	return io(f.store)
}

// ReadAt reads whole sectors.
func (f *File) ReadAt(b []byte, at int64) (int, error) {
	if err := f.do(at, int64(len(b)), func(s storage) error { return s.read(at, b) }); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteAt writes whole sectors. Some of them may be written if it fails.
func (f *File) WriteAt(b []byte, at int64) (int, error) {
	if err := f.do(at, int64(len(b)), func(s storage) error { return s.write(at, b) }); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Discard gives back the whole blocks of length bytes from at on.
func (f *File) Discard(at, length int64) error {
	return f.do(at, length, func(s storage) error { return s.discard(at, length) })
}

// Sync makes durable what was written.
func (f *File) Sync() error { return f.do(0, 0, storage.flush) }

// Close lets the device go. Closing again is no error.
func (f *File) Close() error {
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	f.close()
	return nil
}

func (f *File) close() {
	if f.store == nil {
		return
	}
	store := f.store
	f.store = nil
	delete(f.kernel.files, f.number)
	if f.exclusive {
		store.claimed().file = false
	}
	store.close()
}

// CloseAll closes every open file, the first opened first, as the kernel does when
// the process dies that had them: deferred removals happen, while devices, their
// tables and their suspensions stay. It does not end I/O that waits.
func (k *Kernel) CloseAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(k.files)) {
		k.files[number].close()
	}
}

// A Page is 4096 bytes of a disk, which a power cut keeps or loses as a whole.
type Page struct {
	Disk   dm.DevNo
	Number int64
}

// Unflushed returns the pages that were written and not flushed since, in order
// of disks and, on each, of first writes. They are what PowerCut asks about, in
// the same order.
func (k *Kernel) Unflushed() (pages []Page) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.disks {
		for _, number := range d.order {
			pages = append(pages, Page{d.dev, number})
		}
	}
	return pages
}

// PowerCut ends the machine's life as a power failure does: devices are gone,
// and of what was written to a disk but not flushed remains what keep chooses.
// Files that were open answer EBADF or EIO from then on. The disks stay; the same
// Kernel is the machine after its next boot.
func (k *Kernel) PowerCut(keep func(disk *Disk, page int64) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.files {
		f.store = nil
	}
	clear(k.files)
	for _, d := range k.devices {
		if d == nil {
			continue
		}
		if p := d.pool; p != nil {
			p.mode, p.suspended = modeFail, false // whoever waits for it gives up
		}
		d.live, d.inactive, d.suspended, d.removed = nil, nil, false, true
	}
	k.devices = nil
	for _, disk := range k.disks {
		disk.claim = claim{}
		disk.keep(func(page int64) bool { return keep(disk, page) })
		if m := disk.committing(); m != nil {
			m.rollback()
		}
	}
	k.changed.Broadcast()
}
