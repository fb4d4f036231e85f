package csi_test

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

// A variant is a request with something wrong about it, or something odd.
type variant struct {
	what    string
	request proto.Message
}

// variants changes each field of a request, in all ways that its type suggests. Messages
// within are gone through, too.
func variants(m proto.Message) (all []variant) {
	m.ProtoReflect().Descriptor() // which every message has
	add := func(path []step, what string, change func(protoreflect.Message, protoreflect.FieldDescriptor)) {
		changed := proto.Clone(m)
		at := changed.ProtoReflect()
		for _, s := range path[:len(path)-1] {
			at = s.into(at)
		}
		last := path[len(path)-1]
		change(at, last.field)
		all = append(all, variant{fmt.Sprint(pathOf(path), " ", what), changed})
	}
	walk(m.ProtoReflect(), nil, add)
	return all
}

// A step leads to a field or, in a list of messages, to one of them.
type step struct {
	field protoreflect.FieldDescriptor
	index int
}

func (s step) into(m protoreflect.Message) protoreflect.Message {
	if s.field.IsList() {
		return m.Mutable(s.field).List().Get(s.index).Message()
	}
	return m.Mutable(s.field).Message()
}

func pathOf(path []step) string {
	var names []string
	for _, s := range path {
		names = append(names, string(s.field.Name()))
	}
	return strings.Join(names, ".")
}

type adder = func([]step, string, func(protoreflect.Message, protoreflect.FieldDescriptor))

func walk(m protoreflect.Message, path []step, add adder) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		here := append(slices.Clone(path), step{field: f})
		if m.Has(f) {
			add(here, "cleared", func(m protoreflect.Message, f protoreflect.FieldDescriptor) { m.Clear(f) })
		}
		switch {
		case f.IsMap():
			varyMap(here, add)
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			add(here, "with an empty one more", func(m protoreflect.Message, f protoreflect.FieldDescriptor) { m.Mutable(f).List().AppendMutable() })
			for i := range m.Get(f).List().Len() {
				walk(m.Get(f).List().Get(i).Message(), append(slices.Clone(path), step{f, i}), add)
			}
		case f.IsList():
			add(here, "of odd words", func(m protoreflect.Message, f protoreflect.FieldDescriptor) {
				for _, s := range oddWords {
					m.Mutable(f).List().Append(protoreflect.ValueOfString(s))
				}
			})
		case f.Kind() == protoreflect.MessageKind:
			add(here, "empty", func(m protoreflect.Message, f protoreflect.FieldDescriptor) { m.Set(f, m.NewField(f)) })
			if m.Has(f) {
				walk(m.Get(f).Message(), here, add)
			}
		default:
			varyScalar(m.Get(f), here, add)
		}
	}
}

func varyMap(here []step, add adder) {
	for what, pairs := range map[string][]string{
		"of one unknown":    {"unknown", "value"},
		"of one not ours":   {"csi-dmthin.dev/nothing", "1"},
		"of an odd one":     {"", ""},
		"of a large one":    {"large", strings.Repeat("x", 4096)},
		"with control":      {"a\x00b", "\x1b[2J"},
		"of the sidecars'":  {"csi.storage.k8s.io/pvc/name", "claim"},
		"of the node's key": {"csi-dmthin.dev/node", "elsewhere"},
	} {
		add(here, what, func(m protoreflect.Message, f protoreflect.FieldDescriptor) {
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(pairs[0]).MapKey(), protoreflect.ValueOfString(pairs[1]))
		})
	}
}

var oddWords = []string{
	"x", " ", ".", "..", "/", "../../../etc/passwd", "/etc/passwd", "a\x00b", "a\nb", "\u202e", "名前", "%s%d%n", strings.Repeat("a", 129), strings.Repeat("a", 100000),
	"00000000000000000000000000000000.v-a", "00000000000000000000000000000000.s-a", "-rf", "$(reboot)", "ro,suid", "{}",
}

func varyScalar(has protoreflect.Value, here []step, add adder) {
	set := func(what string, v protoreflect.Value) {
		add(here, what, func(m protoreflect.Message, f protoreflect.FieldDescriptor) { m.Set(f, v) })
	}
	switch f := here[len(here)-1].field; f.Kind() {
	case protoreflect.StringKind:
		for _, s := range append(slices.Clone(oddWords), has.String()+"x", has.String()+"/", strings.ToUpper(has.String())) {
			set(fmt.Sprintf("%.40q", s), protoreflect.ValueOfString(s))
		}
	case protoreflect.Int64Kind:
		for _, n := range []int64{-1, 1, math.MinInt64, math.MaxInt64, math.MaxInt64 - 1<<16, 1 << 60, 1<<60 + 1} {
			set(fmt.Sprint(n), protoreflect.ValueOfInt64(n))
		}
	case protoreflect.Int32Kind:
		for _, n := range []int32{-1, 1, math.MinInt32, math.MaxInt32} {
			set(fmt.Sprint(n), protoreflect.ValueOfInt32(n))
		}
	case protoreflect.BoolKind:
		set(fmt.Sprint(!has.Bool()), protoreflect.ValueOfBool(!has.Bool()))
	case protoreflect.EnumKind:
		for n := range f.Enum().Values().Len() + 1 {
			set(fmt.Sprint("number ", n), protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)))
		}
		set("number -1", protoreflect.ValueOfEnum(-1))
	}
}

// takes makes of a call one that takes any message.
func takes[Request proto.Message, Response any](c call[Request, Response]) func(context.Context, proto.Message) error {
	return func(ctx context.Context, m proto.Message) error {
		_, err := c(ctx, m.(Request))
		return err
	}
}

// A baseline is what is there before each malformed request.
type baseline struct {
	*lab
	v, raw, idle, victim *spec.Volume
	s, doomed            *spec.Snapshot
}

// restore makes everything as it was, after a request that was odd and yet carried out.
func (b *baseline) restore(t testing.TB) {
	t.Helper()
	b.v, b.idle, b.victim = b.volume(t, "v", size(8*mib, 0)), b.volume(t, "idle", size(8*mib, 0)), b.volume(t, "victim", size(8*mib, 0))
	b.raw = b.volume(t, "raw", size(8*mib, 0), access(block()))
	b.s, b.doomed = b.snapshot(t, "s", b.v), b.snapshot(t, "doomed", b.v)
	for _, id := range b.volumes(t) {
		if !slices.Contains([]string{b.v.GetVolumeId(), b.raw.GetVolumeId(), b.idle.GetVolumeId(), b.victim.GetVolumeId()}, id) {
			must(t, b.deleteVolume(t, &spec.Volume{VolumeId: id}))
		}
	}
	for _, id := range b.snapshots(t) {
		if id != b.s.GetSnapshotId() && id != b.doomed.GetSnapshotId() {
			must(t, b.deleteSnapshot(t, &spec.Snapshot{SnapshotId: id}))
		}
	}
	for _, target := range []string{"new", "newx"} {
		must(t, b.unpublish(t, b.v, target))
	}
	for _, path := range []string{b.staging(b.idle), b.staging(b.idle) + "x"} {
		must(t, takes(b.NodeUnstageVolume)(t.Context(), &spec.NodeUnstageVolumeRequest{VolumeId: b.idle.GetVolumeId(), StagingTargetPath: path}))
	}
	must(t, b.stage(t, b.raw, block()))
	must(t, b.stage(t, b.v, mount("")))
	must(t, b.publish(t, b.v, "pod", mount("")))
}

// looks matches the requests that change nothing.
var looks = regexp.MustCompile(`^(Probe|Validate|List|(Controller|Node)?Get)`)

// Whatever is wrong with a request, it is answered by a code that says so, and what is
// refused has changed nothing.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	b := &baseline{lab: runOn(t, csitest.NewWorldOf(t.TempDir(), gib))}
	b.restore(t)
	b.restore(t) // which changes nothing
	allowed := []codes.Code{
		codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.OutOfRange, codes.FailedPrecondition,
		codes.ResourceExhausted, // too large, or on another node
		codes.Unavailable,       // of a pool that is not here
		codes.Aborted,           // a token
	}
	full := volumeRequest("new", size(8*mib, 16*mib), fromSnapshot(b.s), inPool("default"))
	full.Secrets = map[string]string{"k": "v"}
	full.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: b.v.GetAccessibleTopology(), Preferred: b.v.GetAccessibleTopology()}
	id, c := b.v.GetVolumeId(), flags(mount("ext4"), "noatime")
	seen := map[codes.Code]int{}
	for _, test := range []struct {
		do      func(context.Context, proto.Message) error
		request proto.Message
	}{
		{takes(b.CreateVolume), full},
		{takes(b.CreateVolume), volumeRequest("new", size(8*mib, 16*mib), access(block(), block(rwop)), fromVolume(b.raw))},
		{takes(b.DeleteVolume), &spec.DeleteVolumeRequest{VolumeId: b.victim.GetVolumeId(), Secrets: map[string]string{"k": "v"}}},
		{takes(b.ValidateVolumeCapabilities), &spec.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*spec.VolumeCapability{c}, Parameters: map[string]string{"csi-dmthin.dev/pool": "default"}}},
		{takes(b.ListVolumes), &spec.ListVolumesRequest{MaxEntries: 2, StartingToken: b.idle.GetVolumeId()}},
		{takes(b.ListSnapshots), &spec.ListSnapshotsRequest{MaxEntries: 2, StartingToken: b.doomed.GetSnapshotId()}},
		{takes(b.ListSnapshots), &spec.ListSnapshotsRequest{SourceVolumeId: id, SnapshotId: b.s.GetSnapshotId()}},
		{takes(b.GetCapacity), &spec.GetCapacityRequest{VolumeCapabilities: []*spec.VolumeCapability{c}, Parameters: map[string]string{"csi-dmthin.dev/pool": "default"}, AccessibleTopology: b.v.GetAccessibleTopology()[0]}},
		{takes(b.CreateSnapshot), &spec.CreateSnapshotRequest{Name: "new", SourceVolumeId: id, AccessibilityRequirements: full.GetAccessibilityRequirements()}},
		{takes(b.DeleteSnapshot), &spec.DeleteSnapshotRequest{SnapshotId: b.doomed.GetSnapshotId()}},
		{takes(b.GetSnapshot), &spec.GetSnapshotRequest{SnapshotId: b.s.GetSnapshotId()}},
		{takes(b.ControllerGetVolume), &spec.ControllerGetVolumeRequest{VolumeId: id}},
		{takes(b.ControllerExpandVolume), &spec.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &spec.CapacityRange{RequiredBytes: 8 * mib, LimitBytes: gib}, VolumeCapability: c}},
		{takes(b.NodeStageVolume), &spec.NodeStageVolumeRequest{VolumeId: b.idle.GetVolumeId(), StagingTargetPath: b.staging(b.idle), VolumeCapability: c, PublishContext: map[string]string{"k": "v"}}},
		{takes(b.NodeStageVolume), &spec.NodeStageVolumeRequest{VolumeId: b.raw.GetVolumeId(), StagingTargetPath: b.staging(b.raw), VolumeCapability: block()}},
		{takes(b.NodeUnstageVolume), &spec.NodeUnstageVolumeRequest{VolumeId: b.idle.GetVolumeId(), StagingTargetPath: b.staging(b.idle)}},
		{takes(b.NodePublishVolume), &spec.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: b.staging(b.v), TargetPath: b.path("new"), VolumeCapability: c}},
		{takes(b.NodeUnpublishVolume), &spec.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: b.path("new")}},
		{takes(b.NodeGetVolumeStats), &spec.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: b.path("pod"), StagingTargetPath: b.staging(b.v)}},
		{takes(b.NodeExpandVolume), &spec.NodeExpandVolumeRequest{VolumeId: id, VolumePath: b.path("pod"), CapacityRange: &spec.CapacityRange{RequiredBytes: 8 * mib, LimitBytes: gib}, VolumeCapability: c}},
		{takes(b.NodeGetVolumeHealth), &spec.NodeGetVolumeHealthRequest{VolumeId: id, VolumePublishPath: b.path("pod"), StagingTargetPath: b.staging(b.v)}},
		{takes(b.NodeGetStorageHealth), &spec.NodeGetStorageHealthRequest{}},
		{takes(b.NodeGetInfo), &spec.NodeGetInfoRequest{}},
		{takes(b.Probe), &spec.ProbeRequest{}},
	} {
		method := string(test.request.ProtoReflect().Descriptor().Name())
		if err := test.do(t.Context(), test.request); err != nil {
			t.Errorf("%s is not well-formed: %v", method, err)
		}
		b.restore(t)
		changes := !looks.MatchString(method)
		for _, v := range variants(test.request) {
			var err error
			try := func() { err = test.do(t.Context(), v.request) }
			try()
			code := status.Code(err)
			if seen[code]++; !slices.Contains(allowed, code) {
				t.Errorf("%s: %s: %v", method, v.what, err)
			}
			if err == nil && changes {
				b.restore(t)
			} else {
				b.unchanged(t, try)
			}
		}
	}
	t.Logf("answers: %v", seen)
}
