package deviceset_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// sums returns the checksums of all devices.
func (l *kernelLab) sums(s *deviceset.DeviceSet) map[string]string {
	l.Helper()
	sums := map[string]string{}
	for _, name := range s.List() {
		path, err := s.ActivateDevice(name)
		l.must(err)
		sums[name] = l.sum(path)
		l.must(s.DeactivateDevice(name))
	}
	return sums
}

// shelf fills a set with devices of all sorts.
func (l *kernelLab) shelf(s *deviceset.DeviceSet) (sums map[string]string) {
	l.Helper()
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.AddDevice("b", "a", map[string]string{"size": "16M", "label.key": "value"}))
	l.put(s, "a", 2)
	l.must(s.AddDevice("c", "a", map[string]string{"readonly": "true"}))
	l.blank(s, "d", 8*mib)
	l.blank(s, "gone", 8*mib)
	l.must(s.DeleteDevice("gone", true))
	l.must(s.AddDevice("e", "", nil))
	path := l.mount(s, "e")
	l.write(path+"/file", "text")
	l.unmount(s, "e", path)
	l.must(s.GrowDevice("d", 12*mib))
	return l.sums(s)
}

// A pool whose root directory is lost is refused, shown and adopted, with all that its
// devices hold.
func TestKernelAdopt(t *testing.T) {
	for _, test := range []struct {
		name string
		pool func(l *kernelLab) (options []string)
		lose func(l *kernelLab)
	}{
		{"disks", func(l *kernelLab) []string {
			_, _, options := l.onDisks(512*mib, 16*mib)
			return append(options, "dm.basesize=64M")
		}, func(l *kernelLab) { l.must(os.RemoveAll(l.root)) }},
		{"files", func(l *kernelLab) []string { return onFiles }, func(l *kernelLab) {
			l.must(os.Remove(filepath.Join(l.root, "state.0")))
			l.must(os.Remove(filepath.Join(l.root, "state.1")))
		}},
		{"an existing pool", func(l *kernelLab) []string {
			name, _ := l.existing()
			return []string{"dm.thinpooldev=" + name, "dm.basesize=64M"}
		}, func(l *kernelLab) { l.must(os.RemoveAll(l.root)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newKernelLab(t)
			options := test.pool(l)
			s := l.open(options...)
			uuid, secret, sums := s.PoolUUID(), s.PoolSecret(), l.shelf(s)
			l.must(s.Shutdown(l.root))
			test.lose(l)

			l.notOpened(deviceset.ErrForeign, options...)
			shown, err := deviceset.Adopt(l.root, options, false)
			l.must(err)
			l.notOpened(deviceset.ErrForeign, options...)
			l.equal(shown.Done, false)
			l.equal([]any{shown.PoolUUID, shown.PoolSecret, shown.From}, []any{uuid, secret, "label"})
			l.equal([]int{len(shown.Quarantined), len(shown.Lost), len(shown.Deletions)}, []int{0, 0, 0})

			done, err := deviceset.Adopt(l.root, options, true)
			l.must(err)
			l.equal(done.Done, true)
			done.Done = false
			l.equal(done, shown)

			s = l.open(options...)
			l.equal([]string{s.PoolUUID(), s.PoolSecret()}, []string{uuid, secret})
			l.equal(s.Status().ReadOnly, "")
			l.equal(l.sums(s), sums)
			l.equal(len(l.thins(s)), len(sums)+2)
			b, err := s.Device("b")
			l.must(err)
			l.equal([]any{b.Size, b.Parent, b.Adopted, b.Labels["key"]}, []any{16 * mib, "a", true, "value"})
			for _, name := range []string{"a", "d"} {
				l.refused(s.FormatDevice(name, filesystem.Ext4, nil), deviceset.ErrInvalid)
			}
			path := l.mount(s, "e")
			l.reads(path+"/file", "text")
			l.unmount(s, "e", path)
			l.must(s.CreateDevice("new", "", newBlank))
			l.must(s.AddDevice("copy", "b", nil))
			l.must(s.DeleteDevice("b", true))
			l.must(s.Shutdown(l.root))
			l.equal(l.sums(l.open(options...))["copy"], sums["b"])
		})
	}
}

// After an adoption the root that the pool belonged to changes nothing any more.
func TestKernelAdoptedFromUnderIt(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.Shutdown(l.root))
	first := l.root

	l.root = l.dir + "/other"
	_, err := deviceset.Adopt(l.root, options, true)
	l.must(err)
	l.root = first
	s = l.open(options...)
	l.refused(s.CreateDevice("b", "", newBlank), deviceset.ErrReadOnly)
	l.refused(s.DeleteDevice("a", true), deviceset.ErrReadOnly)
	l.holds(s, "a", 1)
	l.must(s.Shutdown(l.root))
	l.root = l.dir + "/other"
	s = l.open(options...)
	l.must(s.CreateDevice("b", "", newBlank))
	l.holds(s, "a", 1)
}

// Metadata that was put back to an earlier state gives devices blocks that are others'
// by now. It shows in the generation, and nothing is made of such a pool.
func TestKernelMetadataOfEarlier(t *testing.T) {
	l := newKernelLab(t)
	_, metadata, options := l.onDisks(256*mib, 16*mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.blank(s, "gone", 8*mib)
	l.put(s, "gone", 2)
	l.must(s.Shutdown(l.root))
	earlier := l.bytes(metadata.path, 16*mib)

	s = l.open(options...)
	l.must(s.DeleteDevice("gone", true))
	l.blank(s, "new", 8*mib)
	l.put(s, "new", 3) // where gone was
	l.must(s.Shutdown(l.root))
	latest := l.bytes(metadata.path, 16*mib)

	l.overwrite(metadata.path, earlier)
	s = l.open(options...)
	t.Log(s.Status().ReadOnly)
	l.refused(s.CreateDevice("b", "", newBlank), deviceset.ErrReadOnly)
	l.refused(s.AddDevice("b", "a", nil), deviceset.ErrReadOnly)
	l.refused(s.DeleteDevice("a", true), deviceset.ErrReadOnly)
	l.equal(s.List(), []string{"a", "new"})
	_, err := s.ActivateDevice("new")
	l.refused(err, deviceset.ErrLost)
	_, err = s.ActivateDevice("gone")
	l.refused(err, deviceset.ErrNotFound)
	l.equal(len(s.Status().Orphans), 1)
	l.holds(s, "a", 1)
	l.must(s.Shutdown(l.root))

	l.overwrite(metadata.path, latest)
	s = l.open(options...)
	l.equal(s.Status().ReadOnly, "")
	l.holds(s, "a", 1)
	l.holds(s, "new", 3)
	l.must(s.CreateDevice("b", "", newBlank))
}

func (l *kernelLab) overwrite(path string, with []byte) {
	l.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	l.must(err)
	_, err = f.Write(with)
	l.must(err)
	l.must(f.Sync())
	l.must(f.Close())
}

// The journal under the root lost its content: the label has all of it.
func TestKernelRootDamaged(t *testing.T) {
	l := newKernelLab(t)
	_, _, options := l.onDisks(512*mib, 16*mib)
	options = append(options, "dm.basesize=64M")
	s, p := l.process(options...)
	sums := l.shelf(s)
	p.die(s)
	for _, file := range []string{"state.0", "state.1"} {
		b, err := os.ReadFile(filepath.Join(l.root, file))
		l.must(err)
		copy(b[4096+100:], "not what was written")
		l.must(os.WriteFile(filepath.Join(l.root, file), b, 0o600))
	}
	s = l.open(options...)
	l.equal(s.Status().ReadOnly, "")
	l.equal(l.sums(s), sums)
	l.must(s.CreateDevice("new", "", newBlank))
	l.must(s.Shutdown(l.root))
	l.equal(len(l.open(options...).List()), len(sums)+1)
}
