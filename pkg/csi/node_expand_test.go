package csi_test

import (
	"math"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

func TestNodeExpandVolume(t *testing.T) {
	l := run(t)
	v, raw, idle := l.volume(t, "v"), l.volume(t, "raw", access(block())), l.volume(t, "idle")
	must(t, l.stage(t, v, mount("")))
	must(t, l.publish(t, v, "pod", mount("")))
	must(t, l.stage(t, raw, block()))
	must(t, l.publish(t, raw, "raw", block()))
	request := func(v *spec.Volume, path string, size int64) *spec.NodeExpandVolumeRequest {
		return &spec.NodeExpandVolumeRequest{VolumeId: v.GetVolumeId(), VolumePath: path, CapacityRange: &spec.CapacityRange{RequiredBytes: size}}
	}
	expand := func(r *spec.NodeExpandVolumeRequest) int64 {
		t.Helper()
		return got[*spec.NodeExpandVolumeResponse](t)(l.NodeExpandVolume(t.Context(), r)).GetCapacityBytes()
	}

	got[int64](t)(l.expand(t, v, 2*gib))
	equals(t, "file system, before", l.fsSize(t, v), gib)
	for _, path := range []string{l.path("pod"), l.staging(v)} {
		for range 2 {
			equals(t, "size", expand(request(v, path, 2*gib)), 2*gib)
			equals(t, "file system", l.fsSize(t, v), 2*gib)
		}
	}
	equals(t, "less", expand(request(v, l.path("pod"), gib)), 2*gib)
	r := request(v, l.path("pod"), 0)
	r.CapacityRange = nil
	equals(t, "no range", expand(r), 2*gib)
	got[int64](t)(l.expand(t, raw, 2*gib))
	equals(t, "a block device", expand(request(raw, l.path("raw"), 2*gib)), 2*gib)
	equals(t, "where it is staged", expand(request(raw, l.staging(raw), 2*gib)), 2*gib)
	equals(t, "without the controller", expand(request(v, l.path("pod"), 3*gib)), 3*gib)
	equals(t, "file system", l.fsSize(t, v), 3*gib)

	for _, test := range []struct {
		what   string
		change func(*spec.NodeExpandVolumeRequest)
		code   codes.Code
	}{
		{"no id", func(r *spec.NodeExpandVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		{"no path", func(r *spec.NodeExpandVolumeRequest) { r.VolumePath = "" }, codes.InvalidArgument},
		{"unknown", func(r *spec.NodeExpandVolumeRequest) { r.VolumeId += "x" }, codes.NotFound},
		{"where it is not", func(r *spec.NodeExpandVolumeRequest) { r.VolumePath = l.path("x") }, codes.NotFound},
		{"where another is", func(r *spec.NodeExpandVolumeRequest) { r.VolumePath = l.path("raw") }, codes.NotFound},
		{"that is not staged", func(r *spec.NodeExpandVolumeRequest) { r.VolumeId = idle.GetVolumeId() }, codes.NotFound},
		{"to no size", func(r *spec.NodeExpandVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }, codes.InvalidArgument},
		{"to a limit that it is beyond", func(r *spec.NodeExpandVolumeRequest) { r.CapacityRange = &spec.CapacityRange{LimitBytes: 2 * gib} }, codes.OutOfRange},
		{"to the largest number", func(r *spec.NodeExpandVolumeRequest) { r.CapacityRange.RequiredBytes = math.MaxInt64 }, codes.OutOfRange},
		{"beyond the pool", func(r *spec.NodeExpandVolumeRequest) { r.CapacityRange.RequiredBytes = 100 * gib }, codes.OutOfRange},
		{"when there is no room", func(r *spec.NodeExpandVolumeRequest) { r.CapacityRange.RequiredBytes = 8 * gib }, codes.Internal},
		{"as what it is not", func(r *spec.NodeExpandVolumeRequest) { r.VolumeCapability = block() }, codes.InvalidArgument},
		{"as what it is", func(r *spec.NodeExpandVolumeRequest) { r.VolumeCapability = mount("ext4") }, codes.OK},
	} {
		r := request(v, l.path("pod"), 3*gib)
		test.change(r)
		equals(t, test.what, code(t, l.NodeExpandVolume, r), test.code)
		equals(t, "size", l.sizeOf(t, v), 3*gib)
	}
}
