package csi_test

import (
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

func flags(c *spec.VolumeCapability, f ...string) *spec.VolumeCapability {
	c.GetMount().MountFlags = f
	return c
}

func TestNodeStageVolume(t *testing.T) {
	t.Parallel()
	l := runOn(t, csitest.NewWorldOf(t.TempDir(), 32*gib))
	for name, test := range map[string]struct {
		made, staged *spec.VolumeCapability
		then         map[codes.Code][]*spec.VolumeCapability // the same path again
	}{
		"mount": {mount("ext4"), mount(""), map[codes.Code][]*spec.VolumeCapability{
			codes.OK:                 {mount(""), mount("ext4"), mount("", rwop), flags(mount(""), "noatime")},
			codes.AlreadyExists:      {mount("", rox)},
			codes.FailedPrecondition: {mount("xfs"), block()},
			codes.InvalidArgument:    {mount("", rwx), mount("btrfs"), {}},
		}},
		"block": {block(), block(rwop), map[codes.Code][]*spec.VolumeCapability{
			codes.OK:                 {block()},
			codes.AlreadyExists:      {block(rox)},
			codes.FailedPrecondition: {mount(""), mount("ext4")},
		}},
		"block, to read": {block(), block(rox), map[codes.Code][]*spec.VolumeCapability{
			codes.OK: {block(rox)},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v := l.volume(t, name, access(test.made))
			must(t, l.stage(t, v, test.staged))
			equals(t, "active", l.isActive(t, v), true)
			l.unchanged(t, func() {
				for code, all := range test.then {
					for _, c := range all {
						refuses(t, l.stage(t, v, c), code)
					}
				}
			})
			for range 2 {
				must(t, l.unstage(t, v))
			}
			equals(t, "active", l.isActive(t, v), false)
			equals(t, "the directory stays", l.exists("staging-"+v.GetVolumeId()), true)
			_, _, mounted := l.mountedAt("staging-" + v.GetVolumeId())
			equals(t, "mounted", mounted, false)
		})
	}
	t.Run("formatted once", func(t *testing.T) {
		for _, fs := range []string{"ext4", "xfs"} {
			v := l.volume(t, fs, access(mount(fs)))
			for range 2 {
				must(t, l.stage(t, v, mount("")))
				must(t, l.unstage(t, v))
			}
			d, err := l.set(t, 0).Device(device(v.GetVolumeId()))
			must(t, err)
			equals(t, "file system", d.FS, fs)
		}
	})
	t.Run("to read what nobody has written", func(t *testing.T) {
		v := l.volume(t, "read", access(mount("", rox)))
		refuses(t, l.stage(t, v, mount("", rox)), codes.FailedPrecondition, "there is no file system")
		equals(t, "active", l.isActive(t, v), false)
		must(t, l.stage(t, v, mount("")))
		must(t, l.unstage(t, v))
		must(t, l.stage(t, v, mount("", rox)))
		readOnly, _, mounted := l.mountedAt("staging-" + v.GetVolumeId())
		equals(t, "mounted, read-only", []bool{mounted, readOnly}, []bool{true, true})
		must(t, l.unstage(t, v))
	})
	t.Run("where another one is", func(t *testing.T) {
		a, b := l.volume(t, "a"), l.volume(t, "b")
		must(t, l.stage(t, a, mount("")))
		r := &spec.NodeStageVolumeRequest{VolumeId: b.GetVolumeId(), StagingTargetPath: l.staging(a), VolumeCapability: mount("")}
		l.unchanged(t, func() {
			equals(t, "stage", code(t, l.NodeStageVolume, r), codes.AlreadyExists)
			equals(t, "unstage", code(t, l.NodeUnstageVolume, &spec.NodeUnstageVolumeRequest{VolumeId: b.GetVolumeId(), StagingTargetPath: l.staging(a)}), codes.FailedPrecondition)
		})
		must(t, l.unstage(t, a))
	})
	t.Run("what is not there", func(t *testing.T) {
		v := l.volume(t, "v")
		for _, id := range append(badIDs(v.GetVolumeId()), v.GetVolumeId()+"x", l.snapshot(t, "s", v).GetSnapshotId()) {
			r := &spec.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: l.dir(t, "s"), VolumeCapability: mount("")}
			equals(t, id, code(t, l.NodeStageVolume, r), codes.NotFound)
			// Where nothing is mounted, nothing is staged.
			equals(t, id, code(t, l.NodeUnstageVolume, &spec.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: l.path("s")}), codes.OK)
		}
	})
	t.Run("what is missing", func(t *testing.T) {
		v := l.volume(t, "v")
		for _, r := range []*spec.NodeStageVolumeRequest{
			{StagingTargetPath: l.dir(t, "s"), VolumeCapability: mount("")},
			{VolumeId: v.GetVolumeId(), VolumeCapability: mount("")},
			{VolumeId: v.GetVolumeId(), StagingTargetPath: l.dir(t, "s")},
		} {
			equals(t, "stage", code(t, l.NodeStageVolume, r), codes.InvalidArgument)
		}
		equals(t, "unstage", code(t, l.NodeUnstageVolume, &spec.NodeUnstageVolumeRequest{StagingTargetPath: l.path("s")}), codes.InvalidArgument)
		equals(t, "unstage", code(t, l.NodeUnstageVolume, &spec.NodeUnstageVolumeRequest{VolumeId: v.GetVolumeId()}), codes.InvalidArgument)
	})
	t.Run("a larger one grows", func(t *testing.T) {
		v := l.volume(t, "grows")
		must(t, l.stage(t, v, mount("")))
		must(t, l.unstage(t, v))
		got[int64](t)(l.expand(t, v, 2*gib))
		must(t, l.stage(t, v, mount("")))
		equals(t, "file system", l.fsSize(t, v), 2*gib)
		must(t, l.unstage(t, v))
	})
}

// fsSize reads how large the file system of a staged volume is.
func (l *lab) fsSize(t testing.TB, v *spec.Volume) int64 {
	t.Helper()
	info, active, err := l.set(t, 0).ActiveDevice(device(v.GetVolumeId()))
	must(t, err)
	equals(t, "active", active, true)
	fs, err := l.Machine.Probe(info)
	must(t, err)
	return fs.Size
}
