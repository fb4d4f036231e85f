package dmsim

import (
	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A File is a disk or dm device, open for I/O in whole sectors.
type File struct {
	kernel *Kernel
	store  storage
}

// Open opens a disk or dm device: ENXIO if there is none.
func (k *Kernel) Open(dev dm.DevNo) (*File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	store := k.storage(dev)
	if store == nil {
		return nil, unix.ENXIO
	}
	if d, ok := store.(*device); ok {
		d.opens++
	}
	return &File{k, store}, nil
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

// Close lets the device go.
func (f *File) Close() error {
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	if d, ok := f.store.(*device); ok {
		d.close()
	}
	f.store = nil
	return nil
}

// PowerCut ends the machine's life as a power failure does: devices are gone,
// and of what was written to a disk but not flushed remains what keep chooses.
// Files that were open answer EBADF or EIO from then on. The disks stay; the same
// Kernel is the machine after its next boot.
func (k *Kernel) PowerCut(keep func(disk *Disk, page int64) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.devices {
		if d == nil {
			continue
		}
		if p := d.pool; p != nil {
			if p.disk.metadata == p.meta {
				p.meta.rollback()
			}
			p.mode, p.suspended = modeFail, false // whoever waits for it gives up
		}
		d.live, d.inactive, d.suspended, d.removed = nil, nil, false, true
	}
	k.devices = nil
	for _, disk := range k.disks {
		disk.keep(func(page int64) bool { return keep(disk, page) })
	}
	k.changed.Broadcast()
}
