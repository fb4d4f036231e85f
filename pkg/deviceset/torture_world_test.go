package deviceset_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// Sizes of the worlds in which crashes are tried: as small as a pool can be.
const (
	label     = 128 << 10
	root      = "/root"
	dataPath  = "/dev/data"
	metaPath  = "/dev/metadata"
	dataSize  = 16 * mib
	metaSize  = 4 * mib
	blockSize = 128 << 10
)

var poolOptions = []string{
	"dm.datadev=" + dataPath, "dm.metadatadev=" + metaPath,
	"dm.overprovision_ratio=0", "dm.basesize=1M",
}

// newWorld returns a machine with the disks of a pool.
func newWorld() *simulated.World {
	w := simulated.NewWorld(1 << 40)
	w.NewDisk(dataPath, dataSize)
	w.NewDisk(metaPath, metaSize)
	return w
}

// A model is what a pool must hold: the devices by name, each as one line.
type model map[string]expected

// expected is what is acknowledged of a device.
type expected struct {
	size    int64
	fs      string
	content byte // of the first block
	label   string
}

func (m model) String() string {
	var lines []string
	for name, e := range m {
		lines = append(lines, fmt.Sprintf("%s:%d:%s:%d:%s", name, e.size, e.fs, e.content, e.label))
	}
	sort.Strings(lines)
	return strings.Join(lines, " ")
}

func (m model) with(name string, e expected) model {
	c := model{name: e}
	for n, old := range m {
		if n != name {
			c[n] = old
		}
	}
	return c
}

func (m model) without(name string) model {
	c := model{}
	for n, e := range m {
		if n != name {
			c[n] = e
		}
	}
	return c
}

// A life is a world with a process that has the pool, and what is known of it: what
// was acknowledged, and what the one call that was not answered may have done.
type life struct {
	ground
	world   *simulated.World // nil on a real machine
	machine *simulated.Machine
	set     *deviceset.DeviceSet
	acked   model
	maybe   model   // nil if nothing is in doubt
	redo    verb    // what is in doubt
	pod     podFile // a device that somebody else has open
	calls   int
}

// begin starts a process in a world.
func begin(w *simulated.World, acked model) (*life, error) {
	l := &life{ground: simulatedGround{w}, world: w, machine: w.Process(nil), acked: acked}
	var err error
	l.set, err = deviceset.OpenQuiet(l.machine, root, label, poolOptions...)
	return l, err
}

// A verb is a call that may be made again.
type verb func(*deviceset.DeviceSet) error

// call makes a call that leads from what is acknowledged to another model. An error
// leaves in doubt whether it did.
func (l *life) call(after model, do verb) error {
	l.maybe, l.redo = after, do
	l.calls++
	err := do(l.set)
	if err == nil {
		l.acked, l.maybe, l.redo = after, nil, nil
	}
	return err
}

// A doubt is what a world may have, and the call that makes it certain.
type doubt struct {
	models []model
	redo   verb
}

func (l *life) doubt() doubt {
	if l.maybe == nil {
		return doubt{models: []model{l.acked}}
	}
	return doubt{[]model{l.acked, l.maybe}, l.redo}
}

// An operation is one of the kinds of which sequences are made.
type operation struct {
	name string
	do   func(*life, int) error
}

var operations = []operation{
	{"create", func(l *life, i int) error {
		name := fmt.Sprint("n", i)
		return l.call(l.acked.with(name, expected{size: mib, fs: "none"}), func(s *deviceset.DeviceSet) error {
			return s.AddDevice(name, "", map[string]string{"fs": "none", "size": "1M"})
		})
	}},
	{"format", func(l *life, _ int) error {
		b, ok := l.acked["b"]
		if !ok {
			return nil
		}
		b.fs, b.content = "ext4", 'f'
		return l.call(l.acked.with("b", b), func(s *deviceset.DeviceSet) error { return s.FormatDevice("b", filesystem.Ext4, nil) })
	}},
	{"snapshot", func(l *life, i int) error { return l.copy(fmt.Sprint("s", i), l.source(), "") }},
	{"snapshot of an active device", func(l *life, i int) error {
		if err := l.write("a", byte(10+i)); err != nil {
			return err
		}
		return l.copy(fmt.Sprint("t", i), "a", "")
	}},
	{"larger clone", func(l *life, i int) error { return l.copy(fmt.Sprint("l", i), l.source(), "2M") }},
	{"grow", func(l *life, i int) error {
		a := l.acked["a"]
		a.size = int64(i+2) * mib
		return l.call(l.acked.with("a", a), func(s *deviceset.DeviceSet) error { return s.GrowDevice("a", a.size) })
	}},
	{"delete", func(l *life, _ int) error {
		name := l.victim()
		if name == "" {
			return nil
		}
		return l.call(l.acked.without(name), func(s *deviceset.DeviceSet) error { return s.DeleteDevice(name, false) })
	}},
	{"delete an open device", func(l *life, _ int) error {
		name := l.victim()
		if name == "" {
			return nil
		}
		if err := l.open(name); err != nil {
			return err
		}
		if err := l.call(l.acked.without(name), func(s *deviceset.DeviceSet) error { return s.DeleteDevice(name, false) }); err != nil {
			return err
		}
		l.closePod()
		l.set.Finish()
		return nil
	}},
	{"label", func(l *life, i int) error {
		b, ok := l.acked["b"]
		if !ok {
			return nil
		}
		b.label = fmt.Sprint(i)
		return l.call(l.acked.with("b", b), func(s *deviceset.DeviceSet) error { return s.SetLabels("b", map[string]string{"k": b.label}) })
	}},
	{"resize the pool", func(l *life, i int) error {
		size := dataSize + int64(i+1)*mib
		if err := l.growDisks(int64(i+1) * mib); err != nil {
			return err
		}
		return l.call(l.acked, func(s *deviceset.DeviceSet) error { return s.ResizePool(size) })
	}},
}

// copy makes a snapshot, which has what its source has.
func (l *life) copy(name, source, size string) error {
	want := l.acked[source]
	want.label = ""
	options := map[string]string{}
	if size != "" {
		want.size += mib
		options["size"] = fmt.Sprint(want.size)
	}
	return l.call(l.acked.with(name, want), func(s *deviceset.DeviceSet) error { return s.AddDevice(name, source, options) })
}

// source is a device that nobody writes to, or else the one that is.
func (l *life) source() string {
	if _, ok := l.acked["c"]; ok {
		return "c"
	}
	return "a"
}

// victim is the device that came last; a stays.
func (l *life) victim() string {
	var names []string
	for name := range l.acked {
		if name != "a" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// write activates a device and writes to it, which is acknowledged by its sync.
func (l *life) write(name string, content byte) error {
	e := l.acked[name]
	e.content = content
	err := l.call(l.acked.with(name, e), func(s *deviceset.DeviceSet) error {
		if _, err := s.ActivateDevice(name); err != nil {
			return err
		}
		f, err := l.file(name)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(bytes.Repeat([]byte{content}, 4096), 0)
		return errors.Join(err, f.Sync(), f.Close())
	})
	l.redo = nil // it is the pod that writes, and not the set
	return err
}

// file opens a device as a pod would, past the process.
func (l *life) file(name string) (podFile, error) {
	info, err := l.info(name)
	if err != nil {
		return nil, err
	}
	return l.openPod(info)
}

func (l *life) info(name string) (dm.Info, error) {
	d, err := l.set.Device(name)
	if err != nil {
		return dm.Info{}, err
	}
	uuid := fmt.Sprintf("CSI-DMTHIN-%s-%d", l.set.PoolUUID(), d.ID)
	return dm.ByUUID(l.kernel(), uuid).Info()
}

func (l *life) open(name string) error {
	l.closePod()
	if _, err := l.set.ActivateDevice(name); err != nil {
		return err
	}
	f, err := l.file(name)
	l.pod = f
	return err
}

func (l *life) closePod() {
	if l.pod != nil {
		_ = l.pod.Close() // of a machine that may have lost its power
	}
	l.pod = nil
}

// observe reads what a set has.
func (l *life) observe() (model, error) {
	found := model{}
	devices, _ := l.set.Devices("", 1000)
	for _, d := range devices {
		if d.Err != nil {
			return nil, d.Err
		}
		if d.Formatting {
			found[d.Name] = expected{d.Size, d.FS, 0, d.Labels["k"]} // and what is on it counts for nothing
			continue
		}
		content, err := l.contentOf(d.Name)
		if err != nil {
			return nil, err
		}
		found[d.Name] = expected{d.Size, d.FS, content, d.Labels["k"]}
	}
	return found, nil
}

func (l *life) contentOf(name string) (byte, error) {
	if _, err := l.set.ActivateDevice(name); err != nil {
		return 0, err
	}
	f, err := l.file(name)
	if err != nil {
		return 0, err
	}
	b := make([]byte, 4096)
	_, err = f.ReadAt(b, 0)
	content := b[0]
	if d, deviceErr := l.set.Device(name); deviceErr == nil && d.FS == "ext4" && !bytes.Equal(b, make([]byte, 4096)) {
		content = 'f' // wherever its superblock begins
	}
	return content, errors.Join(err, f.Close(), l.deactivate(name))
}

// deactivate leaves alone what is mounted.
func (l *life) deactivate(name string) error {
	if err := l.set.DeactivateDevice(name); !errors.Is(err, deviceset.ErrBusy) {
		return err
	}
	return nil
}

// check looks at everything that a start promises: the world has what was
// acknowledged, and perhaps what is in doubt, which the same call makes certain.
func (l *life) check(in doubt) error {
	if reason := l.set.Status().ReadOnly; reason != "" {
		return fmt.Errorf("nothing may be changed: %s", reason)
	}
	l.set.Finish() // what is open keeps its deletion waiting
	l.closePod()
	l.set.Finish()
	found, err := l.observe()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(in.models, func(m model) bool { return m.String() == found.String() }) {
		return fmt.Errorf("found\n  %s\nwant one of\n  %v", found, in.models)
	}
	if err := l.again(in); err != nil {
		return err
	}
	return errors.Join(l.checkPool(), l.checkDevices(), l.checkAlive())
}

// again makes the call that is in doubt once more.
func (l *life) again(in doubt) error {
	if in.redo == nil {
		return nil
	}
	l.maybe = nil
	if err := in.redo(l.set); err != nil && !errors.Is(err, deviceset.ErrNotFound) {
		return fmt.Errorf("called again: %w", err)
	}
	found, err := l.observe()
	if err == nil && found.String() != in.models[1].String() {
		err = fmt.Errorf("called again: found\n  %s\nwant\n  %s", found, in.models[1])
	}
	return err
}

// checkPool holds the pool's thin devices against the set's.
func (l *life) checkPool() error {
	want := map[dm.DeviceID]bool{0: true}
	status := l.set.Status()
	for _, id := range status.Quarantined {
		want[id] = true
	}
	devices, _ := l.set.Devices("", 1000)
	for _, d := range devices {
		want[d.ID] = true
	}
	if base, err := l.set.Device(""); err == nil {
		want[base.ID] = true
	}
	if len(status.Orphans)+len(status.Ghosts)+status.OpenOperations+int(status.DeferredDeletedDeviceCount) > 0 {
		return fmt.Errorf("orphans %v, ghosts %v, %d open creates, %d deletes", status.Orphans, status.Ghosts, status.OpenOperations, status.DeferredDeletedDeviceCount)
	}
	thins, err := l.poolThins()
	for _, t := range thins {
		if !want[t.ID] {
			return fmt.Errorf("thin device %d is nobody's", t.ID)
		}
		delete(want, t.ID)
	}
	if len(want) > 0 {
		return errors.Join(err, fmt.Errorf("thin devices %v are missing", want))
	}
	return err
}

// checkDevices looks for devices that are suspended or have no table.
func (l *life) checkDevices() error {
	devices, err := dm.List(l.kernel(), "", "CSI-DMTHIN-")
	for _, d := range devices {
		info, infoErr := dm.ByName(l.kernel(), d.Name).Info()
		if infoErr != nil || info.Suspended() || !info.Active() || info.Inactive() {
			err = errors.Join(err, infoErr, fmt.Errorf("device %s: suspended %v, active %v, inactive table %v", d.Name, info.Suspended(), info.Active(), info.Inactive()))
		}
	}
	return err
}

// checkAlive makes a device and deletes it.
func (l *life) checkAlive() error {
	if err := l.set.AddDevice("alive", "", map[string]string{"fs": "none", "size": "1M"}); err != nil {
		return err
	}
	return l.set.DeleteDevice("alive", true)
}

// prepared returns a world with the devices a, b and c, whose process has ended.
func prepared(t testing.TB) (*simulated.World, model) {
	t.Helper()
	w := newWorld()
	l, err := begin(w, model{})
	must(t, err)
	must(t, l.prepare())
	must(t, l.set.Shutdown(root))
	w.PowerCut(func(dmsim.Page) bool { return false })
	return w, l.acked
}

// prepare makes a and b, which are blank, writes to a, and makes c, which is a copy
// of it.
func (l *life) prepare() error {
	for _, name := range []string{"a", "b"} {
		err := l.call(l.acked.with(name, expected{size: mib, fs: "none"}), func(s *deviceset.DeviceSet) error {
			return s.AddDevice(name, "", map[string]string{"fs": "none", "size": "1M"})
		})
		if err != nil {
			return err
		}
	}
	if err := l.write("a", 1); err != nil {
		return err
	}
	if err := l.set.DeactivateDevice("a"); err != nil {
		return err
	}
	return l.copy("c", "a", "")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// changes reports whether a step may change what a crash leaves.
func changes(step string) bool {
	for _, asks := range []string{"read ", "info ", "table ", "list ", "probe ", "open ", "status "} {
		if strings.HasPrefix(step, asks) {
			return false
		}
	}
	return true
}

func crashAfter(step int) *dmfault.Plan { return &dmfault.Plan{At: step, Mode: dmfault.CrashAfter} }
