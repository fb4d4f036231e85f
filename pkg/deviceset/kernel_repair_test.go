package deviceset_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// repairLab returns a lab with devices a, b and c, of which b has what a had before, and
// whose pool is down; and the options by which it has its metadata on another disk.
func repairLab(t *testing.T) (l *kernelLab, metadata kernelDisk, other []string, to kernelDisk) {
	t.Helper()
	l = newKernelLab(t)
	data, metadata, options := l.onDisks(256*mib, 16*mib)
	to = l.disk(32 * mib)
	s := l.open(options...)
	l.blank(s, "a", 8*mib)
	l.put(s, "a", 1)
	l.must(s.AddDevice("b", "a", nil))
	l.put(s, "a", 2)
	l.must(s.AddDevice("c", "a", map[string]string{"readonly": "true"}))
	l.must(s.Shutdown(l.root))
	return l, metadata, []string{"dm.datadev=" + data.path, "dm.metadatadev=" + to.path}, to
}

// repaired opens the pool with other metadata, and finds all that there was.
func (l *kernelLab) repaired(options []string) *deviceset.DeviceSet {
	l.Helper()
	s := l.open(options...)
	l.equal(s.Status().ReadOnly, "")
	l.equal([]int{len(s.Status().Ghosts), len(s.Status().Orphans), len(s.Status().Quarantined)}, []int{0, 0, 0})
	l.equal(s.List(), []string{"a", "b", "c"})
	l.holds(s, "a", 2)
	l.holds(s, "b", 1)
	l.holds(s, "c", 2)
	return s
}

// What docs/repair.md says of a repair into another disk, which is larger.
func TestKernelRepair(t *testing.T) {
	l, metadata, options, to := repairLab(t)
	l.tool("thin_repair", "-i", metadata.path, "-o", to.path)
	l.tool("thin_check", to.path)
	s := l.repaired(options)
	l.must(s.ResizePool(256 * mib))
	l.must(s.AddDevice("d", "a", nil))
}

// What docs/repair.md says of a pool that has had all its snapshots.
func TestKernelRebase(t *testing.T) {
	l, metadata, options, to := repairLab(t)
	xml := l.tool("thin_dump", metadata.path)
	xml = regexp.MustCompile(`(<superblock.*) time="[0-9]+"`).ReplaceAllString(xml, `$1 time="16777000"`) // as if it had
	full, rebased := l.dir+"/pool.xml", l.dir+"/rebased.xml"
	l.must(os.WriteFile(full, []byte(xml+"\n"), 0o600))
	l.tool("thin_restore", "-i", full, "-o", to.path)
	s := l.repaired(options)
	l.refused(s.AddDevice("d", "a", nil), deviceset.ErrPoolFull)
	l.must(s.Shutdown(l.root))

	l.tool("thin_dump", "-o", full, to.path)
	text := l.tool("sed", "-E", "-e", `/<superblock/ s/ time="[0-9]+"/ time="1"/`, "-e", `/_mapping/ s/ time="[0-9]+"/ time="0"/`,
		"-e", `/<device/ s/ snap_time="[1-9][0-9]*"/ snap_time="1"/`, full)
	l.must(os.WriteFile(rebased, []byte(text+"\n"), 0o600))
	l.tool("thin_restore", "-i", rebased, "-o", to.path)
	l.tool("thin_check", to.path)
	s = l.repaired(options)
	l.must(s.AddDevice("d", "a", nil))
	l.put(s, "a", 3) // and nobody else has it
	for name, seed := range map[string]uint64{"a": 3, "b": 1, "c": 2, "d": 2} {
		l.holds(s, name, seed)
	}
	l.must(s.Shutdown(l.root))
	l.tool("thin_check", to.path)
	l.open(options...) // the label is where it was
}
