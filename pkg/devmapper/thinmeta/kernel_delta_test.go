package thinmeta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

// Two snapshots of 4 194 304 blocks that differ in four: reading every node takes
// thin_delta as long as it takes.
func TestKernelDeltaOfLargeSnapshots(t *testing.T) {
	const blocks, blockSize = 1 << 22, 128
	k := leavesNothing(t)
	path := metadataFile(t, 256<<20)
	restore(t, path, fmt.Sprintf(`<superblock uuid="" time="0" transaction="0" data_block_size="%d" nr_data_blocks="%d">
  <device dev_id="1" mapped_blocks="%d" transaction="0" creation_time="0" snap_time="0">
    <range_mapping origin_begin="0" data_begin="0" length="%d" time="0"/>
  </device>
</superblock>`, blockSize, blocks+100, blocks, blocks))
	p := newKernelPool(t, k, path, blockSize, blocks+100)
	defer p.close()
	p.must(p.CreateSnap(2, 1))
	v := p.open(1, blocks)
	places := []uint64{0, 1_000_000, 2_500_000, blocks - 1}
	for _, block := range places {
		v.write(block)
	}
	v.close()
	p.must(p.CreateSnap(3, 1))
	p.stop()

	var want []Difference
	for _, block := range places {
		want = append(want, Difference{Range{Blocks(block), 1}, Rewritten})
	}
	m, err := Open(p.loop.Name())
	p.must(err)
	defer m.Close()
	start, before := time.Now(), m.Reads()
	equal(t, "delta", want)(m.Delta(2, 3))
	ours, reads := time.Since(start), m.Reads()-before
	start = time.Now()
	sameDelta(t, want, thinDelta(t, p.loop.Name(), 2, 3))
	tool := time.Since(start)
	t.Logf("delta of %d blocks: %d reads in %v, thin_delta %v: %.0f times faster", blocks, reads, ours, tool, float64(tool)/float64(ours))
	if reads >= 100 || ours > tool/20 {
		t.Error("which is too slow")
	}
	p.wholeTree(t, m)
}

// wholeTree measures what a full walk takes.
func (p *kernelPool) wholeTree(t *testing.T, m *Metadata) {
	start, before := time.Now(), m.Reads()
	ranges, err := m.Ranges(2)
	p.must(err)
	t.Logf("ranges: %d blocks in %d ranges, %d reads in %v", Sum(ranges), len(ranges), m.Reads()-before, time.Since(start))
	start, before = time.Now(), m.Reads()
	exclusive, err := m.Exclusive(1)
	p.must(err)
	t.Logf("exclusive: %d blocks, %d reads in %v", Sum(exclusive), m.Reads()-before, time.Since(start))
}

// restore writes metadata from thin_dump's form into a file, through a device as
// thin_restore wants direct I/O.
func restore(t testing.TB, path, xml string) {
	t.Helper()
	input := filepath.Join(t.TempDir(), "metadata.xml")
	if err := os.WriteFile(input, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	device, err := loop.Attach(path, loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(device.Detach(), device.Close()); err != nil {
			t.Error(err)
		}
	}()
	run(t, "thin_restore", "-i", input, "-o", device.Name())
}
