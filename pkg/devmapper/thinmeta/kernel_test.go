package thinmeta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/loop"
)

// A kernelPool is a pool of the real kernel. Its metadata is a file in memory, its
// data device swallows all that is written: only the mappings matter here.
type kernelPool struct {
	testing.TB
	dm.Pool
	kernel    *dm.Control
	path      string // of the metadata
	loop      *loop.Device
	data      dm.Device
	blockSize dm.Sectors
}

var kernelPools int // so far; they give names

// newKernelPool makes a pool on the metadata in a file, which may be empty.
func newKernelPool(t testing.TB, k *dm.Control, path string, blockSize dm.Sectors, blocks uint64) *kernelPool {
	t.Helper()
	kernelPools++
	p := &kernelPool{TB: t, kernel: k, path: path, blockSize: blockSize}
	var err error
	p.loop, err = loop.Attach(path, loop.Options{})
	p.must(err)
	length := blockSize * dm.Sectors(blocks)
	p.data, err = dm.Activate(k, fmt.Sprintf("thinmeta-data-%d", kernelPools), "", dm.Whole(length, dm.Zero{}))
	p.must(err)
	p.Pool = dm.Pool{Device: dm.ByName(k, fmt.Sprintf("thinmeta-pool-%d", kernelPools))}
	p.activate(dm.Whole(length, dm.ThinPool{
		Metadata: p.loopStatus().Dev, Data: p.info(p.data).Dev, BlockSize: blockSize,
		SkipBlockZeroing: true, NoDiscardPassdown: true, ErrorIfNoSpace: true,
	}))
	return p
}

// metadataFile makes an empty file in memory.
func metadataFile(t testing.TB, size int64) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "thinmeta-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "metadata")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *kernelPool) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *kernelPool) loopStatus() loop.Status {
	p.Helper()
	s, err := p.loop.Status()
	p.must(err)
	return s
}

func (p *kernelPool) info(d dm.Device) dm.Info {
	p.Helper()
	i, err := d.Info()
	p.must(err)
	return i
}

func (p *kernelPool) activate(table dm.Table) {
	p.Helper()
	_, err := dm.Activate(p.kernel, p.Pool.String(), "", table)
	p.must(err)
}

// stop takes the pool away and leaves its metadata.
func (p *kernelPool) stop() {
	p.Helper()
	p.must(p.Remove())
	p.must(p.data.Remove())
}

// close lets go of the metadata of a pool that was stopped.
func (p *kernelPool) close() {
	p.Helper()
	p.must(p.loop.Detach())
	p.must(p.loop.Close())
}

// A volume is an active thin device, open.
type volume struct {
	pool   *kernelPool
	device dm.Device
	file   *os.File
	page   []byte
}

const volumeBlocks = 4096

// open activates a thin device.
func (p *kernelPool) open(id dm.DeviceID, blocks uint64) *volume {
	p.Helper()
	table := dm.Whole(p.blockSize*dm.Sectors(blocks), dm.Thin{Pool: p.info(p.Pool.Device).Dev, ID: id})
	d, err := dm.Activate(p.kernel, fmt.Sprintf("%s-%d", p.Pool, id), "", table)
	p.must(err)
	f, err := dm.OpenNode(p.info(d), os.O_RDWR|unix.O_DIRECT)
	p.must(err)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	p.must(err)
	return &volume{p, d, f, page}
}

func (v *volume) close() {
	v.pool.Helper()
	v.pool.must(unix.Munmap(v.page))
	v.pool.must(v.file.Close())
	v.pool.must(v.device.Remove())
}

// write maps a block.
func (v *volume) write(block uint64) {
	v.pool.Helper()
	_, err := v.file.WriteAt(v.page, v.pool.blockSize.Bytes()*int64(block))
	v.pool.must(err)
}

func (v *volume) discard(block, blocks uint64) {
	v.pool.Helper()
	v.pool.must(dm.Discard(v.file, v.pool.blockSize.Bytes()*int64(block), v.pool.blockSize.Bytes()*int64(blocks)))
}

// leavesNothing fails the test if it leaves a device, a loop or a mount behind.
func leavesNothing(t testing.TB) *dm.Control {
	t.Helper()
	m := dmtest.RealMachine(t)
	dmtest.CheckLeftovers(t, m)
	return m.Kernel().(*dm.Control)
}
