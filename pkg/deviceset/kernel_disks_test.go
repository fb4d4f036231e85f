package deviceset_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A pool on two disks goes on where it was, also under another name of its disks'.
func TestKernelDisks(t *testing.T) {
	l := newKernelLab(t)
	data, metadata, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.equal([]string{s.DataDevicePath(), s.MetadataDevicePath()}, []string{data.path, metadata.path})
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	uuid := s.PoolUUID()
	l.must(s.Shutdown(l.root))

	link := l.dir + "/link"
	l.must(os.Symlink(data.path, link))
	s = l.open("dm.datadev="+link, "dm.metadatadev="+metadata.path)
	l.equal(s.PoolUUID(), uuid)
	l.holds(s, "a", 1)
	l.equal(s.Status().DataLoopback, "") // though it is one: somebody else's
}

// raw bytes of a disk, to compare.
func (l *kernelLab) bytes(path string, n int64) []byte {
	l.Helper()
	b, err := l.openRaw(path).read(0, n)
	l.must(err)
	return b
}

// Disks that carry something are left alone unless dm.force says otherwise.
func TestKernelDisksOfOthers(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(l *kernelLab, path string)
	}{
		{"ext4", func(l *kernelLab, path string) { l.tool("mkfs.ext4", "-q", path) }},
		{"xfs", func(l *kernelLab, path string) { l.tool("mkfs.xfs", "-q", path) }},
		{"partition table", func(l *kernelLab, path string) {
			sector := make([]byte, 4096)
			copy(sector[446:], "\x00\x00\x02\x00\x83\xff\xff\xff\x00\x08\x00\x00\x00\x10\x00\x00")
			copy(sector[510:], "\x55\xaa")
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			l.must(err)
			_, err = f.WriteAt(sector, 0)
			l.must(err)
			l.must(f.Close())
		}},
		{"swap", func(l *kernelLab, path string) { l.tool("mkswap", path) }},
	} {
		for spoiled, which := range []string{"data", "metadata"} {
			t.Run(test.name+" on "+which, func(t *testing.T) {
				l := newKernelLab(t)
				data, metadata, options := l.onDisks(512*mib, 320*mib)
				path := []string{data.path, metadata.path}[spoiled]
				test.spoil(l, path)
				before := l.bytes(path, mib)

				l.notOpened(deviceset.ErrForeign, options...)
				if !bytes.Equal(l.bytes(path, mib), before) {
					t.Error("it was written to")
				}
				s := l.open(append(options, "dm.force=true")...)
				l.blank(s, "a", 8*mib)
				l.put(s, "a", 1)
				l.must(s.Shutdown(l.root))
				l.holds(l.open(options...), "a", 1)
			})
		}
	}
}

// The disks of another set's pool are not taken, not even by force: adopting is
// another verb.
func TestKernelDisksOfAnotherSet(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))
	first := l.root

	l.root = l.dir + "/other"
	l.notOpened(deviceset.ErrForeign, options...)
	l.notOpened(deviceset.ErrForeign, append(options, "dm.force=true")...)
	l.root = first
	l.holds(l.open(options...), "a", 1)
}

// Metadata that begins with zeros would be formatted by the kernel, and all that the
// pool holds would be gone.
func TestKernelMetadataLost(t *testing.T) {
	l := newKernelLab(t)
	data, metadata, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))
	kept := l.bytes(metadata.path, 4096)

	r := l.openRaw(metadata.path)
	_, err := dm.WithAligned(4096, func(b []byte) (int, error) {
		clear(b)
		return r.WriteAt(b, 0)
	})
	l.must(err)
	sumData, sumMetadata := l.sum(data.path), l.sum(metadata.path)
	for range 2 {
		l.notOpened(deviceset.ErrLostMetadata, options...)
	}
	l.notOpened(deviceset.ErrLostMetadata, append(options, "dm.force=true")...)
	if _, err := deviceset.Adopt(l.root, options, true); err == nil {
		t.Error("a pool without metadata was adopted")
	}
	l.equal([]string{l.sum(data.path), l.sum(metadata.path)}, []string{sumData, sumMetadata})

	_, err = dm.WithAligned(4096, func(b []byte) (int, error) { return r.WriteAt(b[:copy(b, kept)], 0) })
	l.must(err)
	r.close()
	s = l.open(options...)
	l.holds(s, "a", 1)
}

// existing makes a pool that somebody else made.
func (l *kernelLab) existing() (name string, pool dm.Pool) {
	l.Helper()
	data, metadata := l.disk(256*mib), l.disk(16*mib)
	d, _ := l.device("pool", dm.Whole(dm.SectorsIn(256*mib), dm.ThinPool{
		Metadata: metadata.Dev(), Data: data.Dev(), BlockSize: dm.SectorsIn(64 << 10), ErrorIfNoSpace: true,
	}))
	return d.String(), dm.Pool{Device: d}
}

// A new pool that somebody else made is taken, and neither reloaded nor removed.
func TestKernelExistingPool(t *testing.T) {
	l := newKernelLab(t)
	name, pool := l.existing()
	table, err := pool.Table()
	l.must(err)
	options := "dm.thinpooldev=/dev/mapper/" + name
	s := l.open(options)
	l.equal(s.DataDevicePath()+s.MetadataDevicePath(), "")
	l.equal(s.Status().PoolName, name)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.refused(s.ResizePool(512*mib), deviceset.ErrForeign)
	l.must(s.Shutdown(l.root))
	after, err := pool.Table()
	l.must(err)
	l.equal(after, table)

	s, p := l.process(options)
	l.holds(s, "a", 1)
	p.die(s)
	s = l.open(options)
	l.holds(s, "a", 1)
	l.must(s.AddDevice("b", "a", nil))
	l.must(s.DeleteDevice("a", true))
	l.holds(s, "b", 1)
}

// A pool that somebody has used is not ours.
func TestKernelExistingPoolInUse(t *testing.T) {
	for _, test := range []struct {
		name string
		use  func(dm.Pool) error
	}{
		{"a thin device", func(p dm.Pool) error { return p.CreateThin(5) }},
		{"thin device 0", func(p dm.Pool) error { return p.CreateThin(0) }},
		{"a transaction id", func(p dm.Pool) error { return p.SetTransactionID(0, 1) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newKernelLab(t)
			name, pool := l.existing()
			l.must(test.use(pool))
			before, err := pool.Commit()
			l.must(err)
			l.notOpened(deviceset.ErrForeign, "dm.thinpooldev="+name)
			after, err := pool.Commit()
			l.must(err)
			l.equal(after, before)
		})
	}
}

// What dm.thinpooldev names must be a pool.
func TestKernelExistingPoolIsNone(t *testing.T) {
	l := newKernelLab(t)
	d, _ := l.device("zero", dm.Whole(2048, dm.Zero{}))
	l.notOpened(deviceset.ErrInvalid, "dm.thinpooldev="+d.String())
	l.notOpened(deviceset.ErrInvalid, "dm.thinpooldev=dmtest-nobody")
}

// A disk that somebody has mounted is no disk for a pool, not even by force. After
// that refusal, other disks will do.
func TestKernelDisksInUse(t *testing.T) {
	l := newKernelLab(t)
	_, metadata, options := l.onDisks(256*mib, 16*mib)
	mounted := l.disk(1024 * mib)
	l.tool("mkfs.ext4", "-q", mounted.path)
	at := l.directory("mnt")
	l.must(unix.Mount(mounted.path, at, "ext4", 0, ""))
	l.Cleanup(func() { l.must(unix.Unmount(at, 0)) })

	l.notOpened(deviceset.ErrForeign, "dm.datadev="+mounted.path, "dm.metadatadev="+metadata.path, "dm.force=true")
	l.must(os.WriteFile(at+"/file", []byte("text"), 0o600))

	// Nor is one on which another device lies, of which dm itself allows several.
	below := l.disk(256 * mib)
	l.device("above", dm.Whole(2048, dm.Linear{Dev: below.Dev()}))
	l.notOpened(deviceset.ErrForeign, "dm.datadev="+below.path, "dm.metadatadev="+metadata.path, "dm.force=true")

	s := l.open(options...)
	l.equal(int64(s.Status().Data.Total), 256*mib)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))
	l.holds(l.open(options...), "a", 1)
}
