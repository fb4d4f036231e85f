package csi_test

import (
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

func TestCreateVolumeFromSource(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	formatted := l.volume(t, "formatted", access(mount("ext4")))
	must(t, l.stage(t, formatted, mount("")))
	must(t, l.unstage(t, formatted))
	raw := l.volume(t, "raw", access(block()))
	snapshot := l.snapshot(t, "snapshot", formatted)
	ofRaw := l.snapshot(t, "of-raw", raw)
	elsewhere := l.volume(t, "elsewhere", inPool("fast"))
	unknown := &spec.Volume{VolumeId: formatted.GetVolumeId() + "x"}
	foreign := &spec.Volume{VolumeId: "0123456789abcdef0123456789abcdef.v-a"}

	for _, test := range []struct {
		what   string
		wishes []wish
		code   codes.Code
		says   string
		size   int64
	}{
		{"a volume", []wish{fromVolume(formatted)}, codes.OK, "", gib},
		{"a snapshot", []wish{fromSnapshot(snapshot)}, codes.OK, "", gib},
		{"of no size", []wish{fromSnapshot(snapshot), size(0, 0)}, codes.OK, "", gib},
		{"larger", []wish{fromSnapshot(snapshot), size(2*gib, 0)}, codes.OK, "", 2 * gib},
		{"larger", []wish{fromVolume(formatted), size(2*gib, 0)}, codes.OK, "", 2 * gib},
		{"smaller", []wish{fromVolume(formatted), size(gib-1, 0)}, codes.OutOfRange, "required_bytes", 0},
		{"smaller", []wish{fromSnapshot(snapshot), size(gib-1, 0)}, codes.OutOfRange, "required_bytes", 0},
		{"limited below it", []wish{fromVolume(formatted), size(0, gib-1)}, codes.OutOfRange, "limit_bytes", 0},
		{"limited to it", []wish{fromVolume(formatted), size(0, gib)}, codes.OK, "", gib},
		{"the same file system", []wish{fromVolume(formatted), access(mount("ext4"))}, codes.OK, "", gib},
		{"another file system", []wish{fromVolume(formatted), access(mount("xfs"))}, codes.InvalidArgument, "xfs", 0},
		{"another file system", []wish{fromSnapshot(snapshot), access(mount("xfs"))}, codes.InvalidArgument, "ext4", 0},
		{"another one by the class", []wish{fromSnapshot(snapshot), parameter("csi.storage.k8s.io/fstype", "xfs")}, codes.InvalidArgument, "xfs", 0},
		{"as a block device", []wish{fromVolume(formatted), access(block())}, codes.OK, "", gib},
		{"of a block device", []wish{fromSnapshot(ofRaw), access(block())}, codes.OK, "", gib},
		{"the source's pool", []wish{fromVolume(elsewhere), inPool("fast")}, codes.OK, "", gib},
		{"another pool", []wish{fromVolume(elsewhere), inPool("default")}, codes.InvalidArgument, "fast", 0},
		{"another pool", []wish{fromSnapshot(snapshot), inPool("fast")}, codes.InvalidArgument, "default", 0},
		{"one that is not there", []wish{fromVolume(unknown)}, codes.NotFound, "content source", 0},
		{"one without an id", []wish{fromVolume(nil)}, codes.NotFound, "content source", 0},
		{"a snapshot's id as a volume's", []wish{fromVolume(&spec.Volume{VolumeId: snapshot.GetSnapshotId()})}, codes.NotFound, "content source", 0},
		{"a volume's id as a snapshot's", []wish{fromSnapshot(&spec.Snapshot{SnapshotId: raw.GetVolumeId()})}, codes.NotFound, "content source", 0},
		{"one of a pool that is not here", []wish{fromVolume(foreign)}, codes.Unavailable, "0123456789abcdef", 0},
		{"no type", []wish{func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = &spec.VolumeContentSource{} }}, codes.InvalidArgument, "content source", 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			asked := volumeRequest("v", test.wishes...)
			v, err := l.tryVolume(t, "v", test.wishes...)
			refuses(t, err, test.code, test.says)
			if err != nil {
				return
			}
			equals(t, "size", v.GetCapacityBytes(), test.size)
			equals(t, "source", v.GetContentSource(), asked.GetVolumeContentSource())
			equals(t, "found", got[*spec.ControllerGetVolumeResponse](t)(l.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})).GetVolume(), v)
			c := asked.GetVolumeCapabilities()[0]
			must(t, l.stage(t, v, c))
			must(t, l.unstage(t, v))
			must(t, l.deleteVolume(t, v))
		})
	}
}

// What nobody has staged has no file system to copy: its copy gets one of its own, and
// still names its source.
func TestCreateVolumeFromBlank(t *testing.T) {
	l := run(t)
	for _, fs := range []string{"ext4", "xfs"} {
		blank := l.volume(t, "blank-"+fs, access(mount(fs)))
		snapshot := l.snapshot(t, "of-blank-"+fs, blank)
		for what, from := range map[string]wish{"volume": fromVolume(blank), "snapshot": fromSnapshot(snapshot)} {
			t.Run(what+" "+fs, func(t *testing.T) {
				v := l.volume(t, "v", from, size(2*gib, 0))
				equals(t, "source", v.GetContentSource(), volumeRequest("", from).GetVolumeContentSource())
				must(t, l.stage(t, v, mount(fs)))
				must(t, l.unstage(t, v))
				equals(t, "the same again", l.volume(t, "v", from, size(2*gib, 0)), v)

				// The copy's copy has what the copy has, and the copy of a copy's snapshot.
				again := l.volume(t, "again", fromSnapshot(l.snapshot(t, "again", v)), size(0, 0))
				must(t, l.stage(t, again, mount("")))
				must(t, l.unstage(t, again))
				must(t, l.deleteVolume(t, again))
				must(t, l.deleteVolume(t, v))
				must(t, l.deleteSnapshot(t, &spec.Snapshot{SnapshotId: got[*spec.ListSnapshotsResponse](t)(l.ListSnapshots(t.Context(),
					&spec.ListSnapshotsRequest{SourceVolumeId: v.GetVolumeId()})).GetEntries()[0].GetSnapshot().GetSnapshotId()}))
			})
		}
	}
	t.Run("of a blank copy's blank snapshot", func(t *testing.T) {
		v := l.volume(t, "a")
		for i := range 3 {
			name := string(rune('b' + i))
			v = l.volume(t, name, fromSnapshot(l.snapshot(t, "of-"+v.GetVolumeId()[34:], v)))
		}
		must(t, l.stage(t, v, mount("")))
		must(t, l.unstage(t, v))
	})
}

// What the users of a block device wrote is never formatted, though it is to be mounted.
func TestCreateVolumeForMountFromBlock(t *testing.T) {
	l := run(t)
	raw := l.volume(t, "raw", access(block()))
	must(t, l.stage(t, raw, block()))
	must(t, l.writes(t, raw, 1))
	must(t, l.unstage(t, raw))
	copied := l.volume(t, "copied", fromVolume(raw), access(mount("ext4")))
	again := l.volume(t, "again", fromSnapshot(l.snapshot(t, "snapshot", copied)))
	third := l.volume(t, "third", fromVolume(copied))
	for _, v := range []*spec.Volume{copied, again, third} {
		l.unchanged(t, func() {
			refuses(t, l.stage(t, v, mount("ext4")), codes.FailedPrecondition, "there is no file system")
			must(t, l.unstage(t, v))
			must(t, removeAll(l.staging(v)))
		})
	}
}

// A clone holds what its source held, whatever is written to either afterwards.
func TestCloneWhileMounted(t *testing.T) {
	l := run(t)
	v := l.volume(t, "v", access(mount("ext4")))
	must(t, l.stage(t, v, mount("")))
	must(t, l.publish(t, v, "pod", mount("")))
	clone := l.volume(t, "clone", fromVolume(v), size(3*gib, 0))
	must(t, l.stage(t, clone, mount("")))
	must(t, l.unpublish(t, v, "pod"))
	must(t, l.unstage(t, v))
	must(t, l.deleteVolume(t, v))
	must(t, l.unstage(t, clone))
	must(t, l.stage(t, clone, mount("")))
	must(t, l.unstage(t, clone))
	equals(t, "source", clone.GetContentSource().GetVolume().GetVolumeId(), v.GetVolumeId())
	must(t, l.deleteVolume(t, clone))
	equals(t, "thin devices", l.thins(t), 1) // the label
}

// A pool that has no room sends the claim to another node.
func TestCreateVolumeOnAFullPool(t *testing.T) {
	w := csitest.NewWorldOf(t.TempDir(), 4*gib)
	l := runOn(t, w)
	v := l.volume(t, "v", size(3*gib, 0))
	s := l.snapshot(t, "s", v)
	for what, wishes := range map[string][]wish{
		"blank": {size(2*gib, 0)}, "a clone": {fromVolume(v), size(0, 0)}, "a restore": {fromSnapshot(s), size(0, 0)},
	} {
		l.unchanged(t, func() {
			_, err := l.tryVolume(t, what, wishes...)
			refuses(t, err, codes.ResourceExhausted, "dm.overprovision_ratio")
		})
	}
	l.volume(t, "small", size(gib, 0))
	must(t, l.deleteVolume(t, v))
	l.volume(t, "large", size(3*gib, 0))
}
