package deviceset_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

var onFiles = []string{"dm.loopdatasize=512M", "dm.loopmetadatasize=16M", "dm.basesize=64M"}

// loopOf fails unless path is the loop device of the file.
func (l *kernelLab) isLoopOf(path, file string) {
	l.Helper()
	found, err := loop.Find(file)
	l.must(err)
	l.equal(len(found), 1)
	defer found[0].Close()
	l.equal(path, found[0].Name())
}

// sizeOf returns the bytes of a block device.
func (l *kernelLab) sizeOf(path string) int64 {
	l.Helper()
	f, err := os.Open(path)
	l.must(err)
	defer f.Close()
	size, err := f.Seek(0, 2)
	l.must(err)
	return size
}

// allocated returns the bytes that a file takes.
func (l *kernelLab) allocated(path string) (size, taken int64) {
	l.Helper()
	var st unix.Stat_t
	l.must(unix.Stat(path, &st))
	return st.Size, st.Blocks * 512
}

func (l *kernelLab) files() (data, metadata string) {
	return filepath.Join(l.root, "devicemapper", "data"), filepath.Join(l.root, "devicemapper", "metadata")
}

// What a pool on files holds survives the end of its process, an orderly one and
// another.
func TestKernelFilesKeepWhatTheyHold(t *testing.T) {
	l := newKernelLab(t)
	s := l.open(onFiles...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.AddDevice("b", "a", nil))
	uuid := s.PoolUUID()
	l.must(s.Shutdown(l.root))

	s, p := l.process(onFiles...)
	l.equal(s.PoolUUID(), uuid)
	l.equal(s.List(), []string{"a", "b"})
	l.holds(s, "a", 1)
	l.put(s, "a", 2)
	l.blank(s, "c", 8*mib)
	r := l.raw(s, "a") // and goes on with it, while there is no process
	p.die(s)
	r.write(3, 0, 4*block)

	s = l.open(onFiles...)
	r.close()
	l.equal(s.PoolUUID(), uuid)
	l.equal(s.List(), []string{"a", "b", "c"})
	l.holds(s, "a", 3)
	l.holds(s, "b", 1)
	l.equal(len(l.thins(s)), 4)
}

// The data file is sparse; that of the metadata is not, since a pool that cannot
// write its metadata is read-only for good.
func TestKernelFilesAndSparseness(t *testing.T) {
	l := newKernelLab(t)
	s := l.open(onFiles...)
	data, metadata := l.files()
	check := func(dataSize, metadataSize int64) {
		t.Helper()
		size, taken := l.allocated(data)
		l.equal(size, dataSize)
		if taken > 32*mib {
			t.Errorf("the data file takes %d bytes of %d", taken, size)
		}
		if size, taken = l.allocated(metadata); size != metadataSize || taken < size {
			t.Errorf("the metadata file has %d bytes, want %d, and takes %d", size, metadataSize, taken)
		}
	}
	check(512*mib, 16*mib)
	l.must(s.ResizePool(1024 * mib))
	check(1024*mib, 64*mib)
}

// The paths are those of loop devices over the files, of the right size: at first,
// after a resize and after a restart.
func TestKernelFilesAndPaths(t *testing.T) {
	l := newKernelLab(t)
	s := l.open(onFiles...)
	data, metadata := l.files()
	check := func(size int64) {
		t.Helper()
		l.isLoopOf(s.DataDevicePath(), data)
		l.isLoopOf(s.MetadataDevicePath(), metadata)
		l.equal(l.sizeOf(s.DataDevicePath()), size)
		st := s.Status()
		l.equal([]string{st.DataFile, st.MetadataFile, st.DataLoopback, st.MetadataLoopback},
			[]string{s.DataDevicePath(), s.MetadataDevicePath(), data, metadata})
		l.equal(int64(st.Data.Total), size)
	}
	check(512 * mib)
	l.must(s.ResizePool(768 * mib))
	check(768 * mib)
	l.must(s.Shutdown(l.root))
	l.equal(len(l.loops()), 0)
	s = l.open(onFiles...)
	check(768 * mib)
}

func (l *kernelLab) loops() []string {
	l.Helper()
	found, err := filepath.Glob("/sys/block/loop*/loop")
	l.must(err)
	return found
}

// dmsetupStatus parses the status of a pool as dmsetup prints it, without any of
// our own means.
func (l *kernelLab) dmsetupStatus(name string) (usedMeta, totalMeta, usedData, totalData, transaction uint64, mode string) {
	l.Helper()
	words := strings.Fields(l.tool("dmsetup", "status", "--noflush", name))
	_, err := fmt.Sscanf(strings.Join(words[3:], " "), "%d %d/%d %d/%d", &transaction, &usedMeta, &totalMeta, &usedData, &totalData)
	l.must(err)
	return usedMeta, totalMeta, usedData, totalData, transaction, words[7]
}

// What Status tells is what dmsetup tells.
func TestKernelStatusIsThatOfDmsetup(t *testing.T) {
	l := newKernelLab(t)
	s := l.open("dm.loopdatasize=64M", "dm.loopmetadatasize=16M", "dm.overprovision_ratio=0", "dm.min_free_space=0%")
	check := func(wantMode string) {
		t.Helper()
		st := s.Status()
		usedMeta, totalMeta, usedData, totalData, transaction, mode := l.dmsetupStatus(st.PoolName)
		l.equal(st.Metadata, deviceset.DiskUsage{Used: usedMeta * 4096, Total: totalMeta * 4096, Available: (totalMeta - usedMeta) * 4096})
		l.equal(st.Data, deviceset.DiskUsage{Used: usedData * uint64(block), Total: totalData * uint64(block), Available: (totalData - usedData) * uint64(block)})
		l.equal(st.SectorSize, uint64(block))
		l.equal(st.TransactionID, transaction)
		l.equal(st.Mode, mode)
		l.equal(mode, wantMode)
		l.equal(st.NeedsCheck, false)
	}
	check("rw")
	l.blank(s, "a", 128*mib)
	r := l.raw(s, "a")
	free := int64(s.Status().Data.Available)
	at := int64(0)
	for ; at < free/2; at += block {
		r.write(uint64(at), at, block)
	}
	check("rw")
	if st := s.Status(); st.Data.Used < st.Data.Total*2/5 || st.Data.Used > st.Data.Total*3/5 {
		t.Errorf("half of it is %d of %d", st.Data.Used, st.Data.Total)
	}
	for ; ; at += block {
		if err := r.tryWrite(uint64(at), at, block); err != nil {
			l.refused(err, unix.ENOSPC)
			break
		}
	}
	l.equal(at, free)
	l.waitFor("the pool to know", func() bool { return s.Status().Mode != "rw" })
	check("out_of_data_space")
	l.equal(s.Status().Data.Used, s.Status().Data.Total)
	r.close()
	l.must(s.DeactivateDevice("a"))
}

// A sparse file has no more to give than the file system that it is on.
func TestKernelFilesAreNoLargerThanTheirDisk(t *testing.T) {
	l := newKernelLab(t)
	l.must(os.Mkdir(l.root, 0o700))
	l.must(unix.Mount("tmpfs", l.root, "tmpfs", 0, "size=48m"))
	l.Cleanup(func() { l.must(unix.Unmount(l.root, 0)) })
	s := l.open("dm.loopdatasize=512M", "dm.loopmetadatasize=16M")
	var st unix.Statfs_t
	l.must(unix.Statfs(l.root, &st))
	free := uint64(st.Bavail) * uint64(st.Bsize)
	have := s.Status().Data
	l.equal(have.Available, free)
	l.equal(have.Total, uint64(512*mib))
	if free >= uint64(48*mib) {
		t.Fatalf("%d bytes are free of 48 MiB", free)
	}

	// Admission goes by that too: a tenth of the pool must be free, and is not.
	l.refused(s.CreateDevice("a", "", deviceset.DeviceOptions{FS: "none", Size: mib}), deviceset.ErrPoolFull)
	l.equal(len(l.thins(s)), 1)
}
