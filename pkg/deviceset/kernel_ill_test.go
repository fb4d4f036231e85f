package deviceset_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// A flakey disk can be told to fail.
type flakey struct {
	dm.Device
	lab  *kernelLab
	on   kernelDisk
	size int64
	path string
}

func (l *kernelLab) flakey(size int64) *flakey {
	l.Helper()
	f := &flakey{lab: l, on: l.disk(size), size: size}
	f.Device, f.path = l.device("flakey", f.table(dmtest.Well(dm.Linear{Dev: f.on.Dev()})))
	return f
}

func (f *flakey) table(t dmtest.Flakey) dm.Table { return dm.Whole(dm.SectorsIn(f.size), t) }

// fails lets the disk do what features say; without any, all its I/O fails.
func (f *flakey) fails(features ...string) {
	f.lab.Helper()
	f.lab.must(f.Swap(f.table(dmtest.Ill(dm.Linear{Dev: f.on.Dev()}, features...)), dm.SkipLockFS|dm.NoFlush))
}

func (f *flakey) works() {
	f.lab.Helper()
	f.lab.must(f.Swap(f.table(dmtest.Well(dm.Linear{Dev: f.on.Dev()})), dm.SkipLockFS|dm.NoFlush))
}

// A pool whose metadata cannot be written serves what it has, and changes nothing. When
// its disk works again, a new start does what the kernel allows: all is well, or the
// metadata is to be checked first. Nothing is lost in either case.
func TestKernelMetadataFails(t *testing.T) {
	for _, test := range []struct {
		name     string
		features []string
	}{
		{"all I/O", nil},
		{"writes", []string{dmtest.ErrorWrites}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newKernelLab(t)
			data, metadata := l.disk(512*mib), l.flakey(16*mib)
			options := []string{"dm.datadev=" + data.path, "dm.metadatadev=" + metadata.path}
			s := l.open(options...)
			l.blank(s, "a", 8*mib)
			l.put(s, "a", 1)
			l.blank(s, "victim", 8*mib)
			for _, name := range []string{"b", "c"} {
				l.blank(s, name, 64*mib)
				l.must(s.FormatDevice(name, filesystem.Ext4, nil))
			}
			b := l.mount(s, "b")
			l.write(b+"/file", "text")
			text, names := "text", []string{"a", "b", "c"}

			metadata.fails(test.features...)
			l.refused(s.CreateDevice("new", "", newBlank), deviceset.ErrUnavailable)
			l.waitFor("the pool to notice", func() bool { return s.Status().Mode != "rw" })
			t.Logf("then the pool says %q", l.poolStatus(s))
			l.isUnavailable(s, "a")
			l.refused(s.DeleteDevice("victim", true), deviceset.ErrUnavailable)

			// What was there before is served, as far as blocks are there already.
			for _, name := range names {
				l.equal(s.HasDevice(name), true)
			}
			l.reads(b+"/file", "text")
			if l.poolStatus(s).Known() { // else it has failed, and the file system with it
				l.write(b+"/file", "more")
				c := l.mount(s, "c")
				l.unmount(s, "c", c)
				_, err := s.GetDeviceStatus("a")
				l.must(err)
				text = "more"
			}
			l.unmount(s, "b", b)
			l.equal(l.isActive(s, "b"), false)
			l.must(s.Shutdown(l.root))

			metadata.works()
			s = l.open(options...)
			status := l.poolStatus(s)
			t.Logf("opened anew it says %q", status)
			if status.NeedsCheck {
				l.equal(s.Status().NeedsCheck, true)
				l.isUnavailable(s, "a")
				s = l.checked(s, metadata.path, options)
			}
			l.waitIdle(s)
			l.equal(s.Status().OpenOperations, 0)
			l.equal(s.Status().ReadOnly, "")
			for _, name := range names {
				if !s.HasDevice(name) {
					t.Errorf("%s is lost", name)
				}
			}
			l.holds(s, "a", 1)
			b = l.mount(s, "b")
			l.reads(b+"/file", text)
			l.unmount(s, "b", b)
			l.must(s.DeleteDevice("a", true))
			l.must(s.CreateDevice("another", "", newBlank))
			l.equal(len(l.thins(s)), len(s.List())+1)
		})
	}
}

// checked clears the mark of a pool that needs a check, as docs/repair.md has it.
func (l *kernelLab) checked(s *deviceset.DeviceSet, metadata string, options []string) *deviceset.DeviceSet {
	l.Helper()
	l.equal(s.Status().NeedsCheck, true)
	l.must(s.Shutdown(l.root))
	given, path := l.given(metadata, 16*mib)
	l.tool("thin_check", "--clear-needs-check-flag", path)
	l.must(given.Remove())
	return l.open(options...)
}

// isUnavailable fails unless what needs the pool to change is put off.
func (l *kernelLab) isUnavailable(s *deviceset.DeviceSet, device string) {
	l.Helper()
	l.refused(s.CreateDevice("new", "", newBlank), deviceset.ErrUnavailable)
	l.refused(s.AddDevice("new", device, nil), deviceset.ErrUnavailable)
	for _, d := range s.List() {
		if d == "new" {
			l.Error("what was refused is there")
		}
	}
}

// given is the metadata device as a pool of the set is given it.
func (l *kernelLab) given(path string, size int64) (given dm.Device, node string) {
	l.Helper()
	var st unix.Stat_t
	l.must(unix.Stat(path, &st))
	length := dm.SectorsIn(size*9/10) / dm.MetadataBlockSize * dm.MetadataBlockSize
	return l.device("given", dm.Whole(length, dm.Linear{Dev: dm.DevNo(st.Rdev)}))
}

// The data disk fails: what needs it fails, and nothing else is made of it.
func TestKernelDataFails(t *testing.T) {
	l := newKernelLab(t)
	data, metadata := l.flakey(256*mib), l.disk(16*mib)
	options := []string{"dm.datadev=" + data.path, "dm.metadatadev=" + metadata.path}
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)

	data.fails()
	// The label is on it, so nothing new can be promised.
	l.refused(s.CreateDevice("new", "", newBlank), deviceset.ErrUnavailable)
	l.equal(s.List(), []string{"a"})
	l.isUnavailable(s, "a")
	l.must(s.Shutdown(l.root))

	data.works()
	s = l.checked(l.open(options...), metadata.path, options)
	l.equal(s.List(), []string{"a"})
	l.equal(s.Status().ReadOnly, "")
	l.holds(s, "a", 1)
	l.must(s.CreateDevice("new", "", newBlank))
	l.must(s.DeleteDevice("a", true))
}

// Without its disks a set is not opened by force of habit: it says what is missing, and
// makes nothing in its place.
func TestKernelDiskMissing(t *testing.T) {
	l := newKernelLab(t)
	data, metadata, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))

	missing := []string{"dm.datadev=/dev/dmtest-nowhere", "dm.metadatadev=" + metadata.path}
	s = l.open(missing...)
	l.equal(s.List(), []string{"a"})
	l.equal(s.Status().Mode, "unavailable")
	l.isUnavailable(s, "a")
	l.refused(s.MountDevice("a", l.dir, deviceset.MountOpts{}), deviceset.ErrUnavailable)
	l.must(s.UnmountDevice("a", l.dir+"/nowhere"))
	l.must(s.Shutdown(l.root))

	l.notOpened(deviceset.ErrForeign, "dm.datadev="+l.disk(256*mib).path, "dm.metadatadev="+metadata.path)
	l.notOpened(deviceset.ErrForeign, "dm.datadev="+metadata.path, "dm.metadatadev="+data.path)
	s = l.open(options...)
	l.holds(s, "a", 1)
}
