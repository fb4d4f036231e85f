package csi_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// A lab is a world with a driver that runs on it.
type lab struct {
	*csitest.Node
	world *csitest.World
}

// run runs a driver on a new world until the test ends.
func run(t testing.TB, options ...string) *lab { return runOn(t, newWorld(t), options...) }

// newWorld returns a world whose pool has 8 GiB.
func newWorld(t testing.TB) *csitest.World { return csitest.NewWorldOf(t.TempDir(), 8*gib) }

func runOn(t testing.TB, w *csitest.World, options ...string) *lab {
	t.Helper()
	return &lab{w.Run(t, options...), w}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// got returns the answer of a call that must not fail: got(t)(call(...)).
func got[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(answer T, err error) T {
		t.Helper()
		must(t, err)
		return answer
	}
}

// refuses fails unless an error has the code, and says the words.
func refuses(t testing.TB, err error, code codes.Code, words ...string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("code is %v, want %v: %v", s.Code(), code, err)
	}
	for _, word := range append(words, "") {
		if !strings.Contains(s.Message(), word) {
			t.Errorf("the message has no %q: %s", word, s.Message())
		}
	}
	if len(s.Details()) > 0 || strings.Contains(s.Message(), "%!") {
		t.Errorf("the message is odd: %s %v", s.Message(), s.Details())
	}
}

func equals(t testing.TB, what string, have, want any) {
	t.Helper()
	if h, ok := have.(proto.Message); ok {
		if w, ok := want.(proto.Message); ok && proto.Equal(h, w) {
			return
		}
	}
	if !reflect.DeepEqual(have, want) {
		t.Fatalf("%s: have %v, want %v", what, have, want)
	}
}

// Access as a file system of any type, as one of a given type, and as a block device.
// With no mode given it is that of a volume which pods of a node share.
func mount(fs string, modes ...spec.VolumeCapability_AccessMode_Mode) *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: fs}},
		AccessMode: mode(modes),
	}
}

func block(modes ...spec.VolumeCapability_AccessMode_Mode) *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}},
		AccessMode: mode(modes),
	}
}

const (
	rwo  = spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	rwop = spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	rox  = spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	rwx  = spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
)

func mode(modes []spec.VolumeCapability_AccessMode_Mode) *spec.VolumeCapability_AccessMode {
	return &spec.VolumeCapability_AccessMode{Mode: append(slices.Clone(modes), rwo)[0]}
}

// A wish changes the request for a volume.
type wish func(*spec.CreateVolumeRequest)

func size(least, most int64) wish {
	return func(r *spec.CreateVolumeRequest) {
		r.CapacityRange = &spec.CapacityRange{RequiredBytes: least, LimitBytes: most}
	}
}

func access(c ...*spec.VolumeCapability) wish {
	return func(r *spec.CreateVolumeRequest) { r.VolumeCapabilities = c }
}

func parameter(key, value string) wish {
	return func(r *spec.CreateVolumeRequest) {
		if r.Parameters == nil {
			r.Parameters = map[string]string{}
		}
		r.Parameters[key] = value
	}
}

func inPool(name string) wish { return parameter("csi-dmthin.dev/pool", name) }

func fromVolume(v *spec.Volume) wish {
	return func(r *spec.CreateVolumeRequest) {
		r.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{
			Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: v.GetVolumeId()},
		}}
	}
}

func fromSnapshot(s *spec.Snapshot) wish {
	return func(r *spec.CreateVolumeRequest) {
		r.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{
			Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: s.GetSnapshotId()},
		}}
	}
}

// volumeRequest asks for a volume of 1 GiB for a file system, unless wishes say else.
func volumeRequest(name string, wishes ...wish) *spec.CreateVolumeRequest {
	r := &spec.CreateVolumeRequest{Name: name}
	for _, w := range append([]wish{size(gib, 0), access(mount(""))}, wishes...) {
		w(r)
	}
	return r
}

func (l *lab) tryVolume(t testing.TB, name string, wishes ...wish) (*spec.Volume, error) {
	r, err := l.CreateVolume(t.Context(), volumeRequest(name, wishes...))
	return r.GetVolume(), err
}

func (l *lab) volume(t testing.TB, name string, wishes ...wish) *spec.Volume {
	t.Helper()
	return got[*spec.Volume](t)(l.tryVolume(t, name, wishes...))
}

func (l *lab) trySnapshot(t testing.TB, name string, of *spec.Volume) (*spec.Snapshot, error) {
	r, err := l.CreateSnapshot(t.Context(), &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: of.GetVolumeId()})
	return r.GetSnapshot(), err
}

func (l *lab) snapshot(t testing.TB, name string, of *spec.Volume) *spec.Snapshot {
	t.Helper()
	return got[*spec.Snapshot](t)(l.trySnapshot(t, name, of))
}

func (l *lab) deleteVolume(t testing.TB, v *spec.Volume) error {
	_, err := l.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	return err
}

func (l *lab) deleteSnapshot(t testing.TB, s *spec.Snapshot) error {
	_, err := l.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	return err
}

// path returns a path below the kubelet's directory.
func (l *lab) path(name string) string { return filepath.Join(l.world.KubeletDir, name) }

// dir makes a directory there.
func (l *lab) dir(t testing.TB, name string) string {
	t.Helper()
	must(t, os.MkdirAll(l.path(name), 0o750))
	return l.path(name)
}

// staging is where a volume is staged in these tests.
func (l *lab) staging(v *spec.Volume) string { return l.path("staging-" + v.GetVolumeId()) }

func (l *lab) stage(t testing.TB, v *spec.Volume, c *spec.VolumeCapability) error {
	t.Helper()
	must(t, os.MkdirAll(l.staging(v), 0o750))
	_, err := l.NodeStageVolume(t.Context(), &spec.NodeStageVolumeRequest{
		VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v), VolumeCapability: c,
	})
	return err
}

func (l *lab) unstage(t testing.TB, v *spec.Volume) error {
	_, err := l.NodeUnstageVolume(t.Context(), &spec.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v)})
	return err
}

func publishRequest(l *lab, v *spec.Volume, target string, c *spec.VolumeCapability) *spec.NodePublishVolumeRequest {
	return &spec.NodePublishVolumeRequest{
		VolumeId: v.GetVolumeId(), StagingTargetPath: l.staging(v), TargetPath: l.path(target), VolumeCapability: c,
	}
}

func (l *lab) publish(t testing.TB, v *spec.Volume, target string, c *spec.VolumeCapability) error {
	_, err := l.NodePublishVolume(t.Context(), publishRequest(l, v, target, c))
	return err
}

func (l *lab) unpublish(t testing.TB, v *spec.Volume, target string) error {
	_, err := l.NodeUnpublishVolume(t.Context(), &spec.NodeUnpublishVolumeRequest{VolumeId: v.GetVolumeId(), TargetPath: l.path(target)})
	return err
}

// volumes returns the ids of a list of volumes.
func (l *lab) volumes(t testing.TB) (ids []string) {
	t.Helper()
	for _, e := range got[*spec.ListVolumesResponse](t)(l.ListVolumes(t.Context(), &spec.ListVolumesRequest{})).GetEntries() {
		ids = append(ids, e.GetVolume().GetVolumeId())
	}
	return ids
}

func (l *lab) snapshots(t testing.TB) (ids []string) {
	t.Helper()
	for _, e := range got[*spec.ListSnapshotsResponse](t)(l.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{})).GetEntries() {
		ids = append(ids, e.GetSnapshot().GetSnapshotId())
	}
	return ids
}

// capacity returns how large a new volume can be, by both figures, which are the same.
func (l *lab) capacity(t testing.TB, r *spec.GetCapacityRequest) int64 {
	t.Helper()
	a := got[*spec.GetCapacityResponse](t)(l.GetCapacity(t.Context(), r))
	equals(t, "maximum volume size", a.GetMaximumVolumeSize().GetValue(), a.GetAvailableCapacity())
	return a.GetAvailableCapacity()
}

// set returns the device set of a pool.
func (l *lab) set(t testing.TB, pool int) *deviceset.DeviceSet {
	t.Helper()
	layers, err := l.Driver.Pools[pool].Layers()
	must(t, err)
	return layers.DeviceSet
}

// pool returns the dm pool of the first pool, past its set.
func (l *lab) pool(t testing.TB) dm.Pool {
	t.Helper()
	return dm.Pool{Device: dm.ByName(l.world.Kernel(), l.set(t, 0).Status().PoolName)}
}

// device returns the name of a volume's device.
func device(id string) string {
	_, name, _ := strings.Cut(id, ".")
	return name
}

// isActive reports whether a volume has a block device.
func (l *lab) isActive(t testing.TB, v *spec.Volume) bool {
	t.Helper()
	_, active, err := l.set(t, 0).ActiveDevice(device(v.GetVolumeId()))
	must(t, err)
	return active
}

// mountedAt tells what is mounted somewhere on the simulated machine.
func (l *lab) mountedAt(target string) (readOnly, node, mounted bool) {
	m, node, mounted := l.Machine.BoundAt(l.path(target))
	return m.ReadOnly, node, mounted
}

// exists reports whether there is something at a path below the kubelet's directory.
func (l *lab) exists(name string) bool {
	_, err := os.Lstat(l.path(name))
	return err == nil
}

// unchanged fails if do changes what any disk holds for good, what is active, or what is
// mounted below the kubelet's directory. Where something was flushed, it is done again
// and looked at in full: it may have been the end of an operation before.
func (l *lab) unchanged(t testing.TB, do func()) {
	t.Helper()
	have := l.visible(t)
	look := l.flushes
	for range 4 {
		before := look()
		do()
		equals(t, "devices and targets", l.visible(t), have)
		if look() == before {
			return
		}
		look = l.world.Kernel().Digest
	}
	t.Fatal("a disk was changed")
}

// flushes returns how often disks were flushed. Without that nothing is durable.
func (l *lab) flushes() (n uint64) {
	for _, pool := range l.world.Pools {
		slots := simulated.SlotPaths(csitest.Root(pool))
		for _, path := range append(slots[:], csitest.DataDisk(pool), csitest.MetadataDisk(pool)) {
			if disk := l.world.DiskAt(path); disk != nil { // the pool is not made yet
				n += uint64(disk.Flushes())
			}
		}
	}
	return n
}

// visible lists the devices that are active, and what is below the kubelet's directory.
func (l *lab) visible(t testing.TB) (all []string) {
	t.Helper()
	devices, err := dm.List(l.world.Kernel(), "", "")
	must(t, err)
	for _, d := range devices {
		all = append(all, d.Name)
	}
	files, err := os.ReadDir(l.world.KubeletDir)
	must(t, err)
	for _, f := range files {
		_, _, mounted := l.mountedAt(f.Name())
		all = append(all, f.Name()+map[bool]string{true: " mounted"}[mounted])
	}
	return all
}

// thins returns how many thin devices the first pool has, as of its last commit.
func (l *lab) thins(t testing.TB) int {
	t.Helper()
	_, err := l.pool(t).Commit()
	must(t, err)
	m, err := l.world.DiskAt(csitest.MetadataDisk("default")).Metadata()
	must(t, err)
	defer func() { must(t, m.Close()) }()
	devices, err := m.Devices()
	must(t, err)
	return len(devices)
}

// writes writes n blocks of a volume that is active, as its user does.
func (l *lab) writes(t testing.TB, v *spec.Volume, n int64) error {
	t.Helper()
	info, active, err := l.set(t, 0).ActiveDevice(device(v.GetVolumeId()))
	must(t, err)
	equals(t, "active", active, true)
	f, err := l.world.Kernel().Open(info.Dev)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	block := l.set(t, 0).BlockSize()
	for i := range n {
		if _, err := f.WriteAt(make([]byte, block), i*block); err != nil {
			return err
		}
	}
	return f.Sync()
}

// A call is any of CSI's, as a client has it.
type call[Request, Response any] func(context.Context, Request, ...grpc.CallOption) (Response, error)

// code returns how a call was answered.
func code[Request, Response any](t testing.TB, c call[Request, Response], r Request) codes.Code {
	_, err := c(t.Context(), r)
	return status.Code(err)
}

func removeAll(path string) error { return os.RemoveAll(path) }

func must1[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// foreignDevice mounts a device of somebody else's at a path, until it is called off.
func (l *lab) foreignDevice(t testing.TB, name, path string) (off func()) {
	t.Helper()
	l.world.NewDisk("/dev/"+name, mib)
	d, err := dm.Activate(l.world.Kernel(), name, "", dm.Whole(dm.SectorsIn(mib), dm.Linear{Dev: l.world.DiskAt("/dev/" + name).Dev()}))
	must(t, err)
	info, err := d.Info()
	must(t, err)
	must(t, l.Machine.Bind(info.Node(), path, false))
	return func() {
		must(t, l.Machine.Unmount(t.Context(), path, false))
		must(t, d.Remove())
	}
}

// comesTrue waits for what somebody else does.
func comesTrue(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
