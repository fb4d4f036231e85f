package deviceset_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// kernelGround is this machine, with two disks for a pool.
type kernelGround struct {
	lab            *kernelLab
	data, metadata kernelDisk
	options        []string
	path           string // to mount at
	alive          []*kernelActor
}

func newKernelGround(l *kernelLab) *kernelGround {
	g := &kernelGround{lab: l, path: l.directory("mnt")}
	g.data, g.metadata, g.options = l.onDisks(dataSize, metaSize)
	g.options = append(g.options, "dm.overprovision_ratio=0", "dm.basesize=1M")
	return g
}

// A kernelActor is a process of which all steps can fail: what it asks of
// device-mapper, and what it writes.
type kernelActor struct{ *process }

func (a kernelActor) Break(plan *dmfault.Plan) { a.breakWith(plan) }

func (a kernelActor) Dead() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dead || a.plan != nil && a.plan.Crashed()
}

func (a kernelActor) OpenSlots(root string) ([2]deviceset.Block, error) {
	slots, err := a.process.OpenSlots(root)
	if err == nil {
		slots = [2]deviceset.Block{brittle{slots[0], a}, brittle{slots[1], a}}
	}
	return slots, err
}

func (a kernelActor) OpenDevice(i dm.Info, exclusive bool) (deviceset.Block, error) {
	b, err := a.process.OpenDevice(i, exclusive)
	if err != nil {
		return nil, err
	}
	return brittle{b, a}, nil
}

// A brittle block's writes and syncs are steps of its process's plan.
type brittle struct {
	deviceset.Block
	of kernelActor
}

func (b brittle) step(what string, do func() error) error {
	b.of.mu.Lock()
	plan, dead := b.of.plan, b.of.dead
	b.of.mu.Unlock()
	switch {
	case dead:
		return dmfault.ErrCrashed
	case plan == nil:
		return do()
	}
	return plan.Do(what, do)
}

func (b brittle) WriteAt(p []byte, at int64) (n int, err error) {
	err = b.step("write", func() (err error) {
		n, err = b.Block.WriteAt(p, at)
		return err
	})
	return n, err
}

func (b brittle) Sync() error { return b.step("sync", b.Block.Sync) }

func (g *kernelGround) start(plan *dmfault.Plan) actor {
	a := &kernelActor{g.lab.newProcess()}
	a.Break(plan)
	g.alive = append(g.alive, a)
	return *a
}

func (g *kernelGround) kill() {
	for _, a := range g.alive {
		a.die(nil)
	}
	g.alive = nil
}

func (g *kernelGround) kernel() dm.Kernel  { return g.lab.kernel }
func (g *kernelGround) mountPoint() string { return g.path }

func (g *kernelGround) openSet(m deviceset.Machine) (*deviceset.DeviceSet, error) {
	return deviceset.OpenQuiet(m, g.lab.root, label, g.options...)
}

func (g *kernelGround) openPod(i dm.Info) (podFile, error) {
	return (&deviceset.Host{}).OpenDevice(i, false)
}

func (g *kernelGround) growDisks(more int64) error {
	return errors.Join(g.data.Grow(dm.SectorsIn(dataSize+more)), g.metadata.Grow(dm.SectorsIn(metaSize+more)))
}

func (g *kernelGround) poolThins() ([]thinmeta.Device, error) {
	devices, err := dm.List(g.lab.kernel, "", "CSI-DMTHIN-")
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		if !strings.HasSuffix(d.UUID, "-pool") {
			continue
		}
		if _, err := (dm.Pool{Device: dm.ByName(g.lab.kernel, d.Name)}).Commit(); err != nil {
			return nil, err
		}
	}
	m, err := thinmeta.Open(g.metadata.path)
	if err != nil {
		return nil, err
	}
	thins, err := m.Devices()
	return thins, errors.Join(err, m.Close())
}

// prepare makes the devices that the story begins with.
func (g *kernelGround) prepare() (model, error) {
	l := &life{ground: g, acked: model{}}
	var err error
	if l.set, err = g.openSet(g.start(nil)); err == nil {
		err = l.prepare()
	}
	if err == nil {
		err = l.set.Shutdown(g.lab.root)
	}
	g.kill()
	return l.acked, err
}

// renew takes everything down and makes the disks blank.
func (g *kernelGround) renew() {
	g.lab.Helper()
	g.kill()
	host := g.lab.newProcess()
	s, err := g.openSet(host)
	g.lab.must(err)
	for _, name := range s.List() {
		g.lab.must(s.UnmountDevice(name, g.path))
		g.lab.must(s.DeactivateDevice(name))
	}
	g.lab.must(s.DeactivateDevice(""))
	g.lab.must(s.Shutdown(g.lab.root))
	for _, d := range []kernelDisk{g.data, g.metadata} {
		f, err := os.OpenFile(d.path, os.O_WRONLY, 0)
		g.lab.must(err)
		_, err = f.Write(make([]byte, 4*mib))
		g.lab.must(errors.Join(err, f.Sync(), f.Close()))
	}
	g.lab.must(os.RemoveAll(g.lab.root))
}

// The story of the simulator, on this kernel: it ends well whichever step fails, in
// each of the four ways. Of the steps a part is tried, each way beginning with
// another one.
func TestKernelStory(t *testing.T) {
	l := newKernelLab(t)
	const stride = 23
	trials := 0
	g := newKernelGround(l)
	for mode := range dmfault.Mode(dmfault.NumModes) {
		for at := int(mode) * 2; ; at += stride {
			acked, err := g.prepare()
			l.must(err)
			tr := &trial{first: &dmfault.Plan{At: at, Mode: mode}}
			err = tr.tell(g, acked)
			g.renew()
			if tr.first.Hit() == "" {
				break
			}
			trials++
			if err != nil {
				t.Errorf("%s at step %d, %s: %v", mode, at, tr.first.Hit(), err)
			}
		}
	}
	t.Logf("the story was told %d times", trials)
}
