package deviceset

import (
	"context"
	"io"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A Machine is all that a DeviceSet stands on: device-mapper, disks, the files
// under its root, file systems and a clock. There is this one (ThisMachine), and a
// simulated one on which crashes are tried (package simulated).
type Machine interface {
	dm.Watcher
	Disks
	Files
	Filesystems

	// ID tells this machine from others.
	ID() string
	// NewUUID returns 128 bits that nobody else has, in hexadecimal digits.
	NewUUID() string
	Now() time.Time
}

// Files are what a DeviceSet keeps under its root.
type Files interface {
	// MakeRoot makes the directory that everything is kept under, and gives it to a
	// user.
	MakeRoot(root string, uid, gid int) error

	// Lock takes root for this process, until the lock is closed or the process
	// dies: ErrInUse if another one has it, fs.ErrNotExist if there is no root.
	Lock(root string) (io.Closer, error)

	// MakeSlots makes the journal's two files of size bytes each, written with
	// zeros in full and durable with their names, in place of what is there.
	MakeSlots(root string, size int64) error

	// OpenSlots opens them past the page cache: fs.ErrNotExist unless both are
	// there. Writes reach the disk with Sync.
	OpenSlots(root string) ([2]Block, error)

	// OpenFile attaches a file under the root as a disk, after growing it to size
	// bytes; it never shrinks one. A file is made if there is none and size is not
	// zero, else it is fs.ErrNotExist.
	OpenFile(path string, size int64, with Filling) (Disk, error)

	// Space returns how many bytes the file system of a path has, and how many of them
	// are free. The path need not be there.
	Space(path string) (Space, error)

	// Allocated returns how many bytes a file takes of its file system, holes left out.
	Allocated(path string) (int64, error)
}

// A Filling is what a file that grows is grown with.
type Filling int

// What needs no space later is allocated or written.
const (
	Holes  Filling = iota
	Blocks         // of the file system, for all of the file, what it had included
	Zeros          // which are written, where the file had nothing
)

// Space is what a file system has, in bytes.
type Space struct{ Free, Total int64 }

// Disks are what pools lie on.
type Disks interface {
	// OpenDisk opens a block device by its path.
	OpenDisk(path string) (Disk, error)

	// OpenNumber opens a block device by its number, for reading.
	OpenNumber(dm.DevNo) (Block, error)

	// OpenDevice opens a dm device. Exclusively it is EBUSY if another process has
	// it so, or a table.
	OpenDevice(i dm.Info, exclusive bool) (Block, error)

	// Node returns a path of a dm device's node.
	Node(i dm.Info) (string, error)

	// Metadata opens the metadata of a pool, on the device of that number.
	Metadata(dm.DevNo) (Metadata, error)
}

// A Block is a block device or a file, open. Offsets and lengths are multiples of
// 4096 bytes. I/O passes the page cache by where it can.
type Block interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Sync() error
	Discard(offset, length int64) error
}

// A Disk is a Block that a table can lie on.
type Disk interface {
	Block
	Path() string
	Dev() dm.DevNo
	// InUse reports whether something else has claimed the disk: a mount, a table, or
	// whoever opened it with O_EXCL.
	InUse() (bool, error)
	// Claim keeps others from making a pool of the disk until release is called, or the
	// disk is closed: ErrInUse if somebody else has claimed it.
	Claim() (release func() error, err error)
	// Grow makes the disk larger, if it is a file; a device is only asked for its
	// new size. It grows in one step, or not at all.
	Grow(size int64, with Filling) error
}

// Metadata is a pool's metadata as of its last commit: a *thinmeta.Metadata.
type Metadata interface {
	io.Closer
	Superblock() (thinmeta.Superblock, error)
	Devices() ([]thinmeta.Device, error)
	Device(dm.DeviceID) (thinmeta.Device, error)
	Extent(dm.DeviceID) (thinmeta.Blocks, error)
	Exclusive(dm.DeviceID) ([]thinmeta.Range, error)
}

// Filesystems are what is on devices, and where they are mounted. A device is
// given as device-mapper describes it.
type Filesystems interface {
	Probe(dm.Info) (filesystem.Info, error)
	// Signature names what marks a disk as used; it is empty if there is nothing.
	Signature(Disk) (string, error)
	Make(context.Context, dm.Info, filesystem.Type, filesystem.MakeOptions) error
	Check(context.Context, dm.Info, filesystem.Type) error
	GrowFS(ctx context.Context, i dm.Info, mountPoint string, t filesystem.Type) error
	Mount(i dm.Info, path string, t filesystem.Type, o filesystem.MountOptions) error
	Unmount(ctx context.Context, path string, lazy bool) error
	// MountedAt tells which device is mounted at a path, if one is.
	MountedAt(path string) (Mount, bool, error)
	// MountPoints returns where a device is mounted.
	MountPoints(dm.DevNo) ([]string, error)
}

// A Mount is what is mounted somewhere.
type Mount struct {
	Dev      dm.DevNo
	ReadOnly bool
}
