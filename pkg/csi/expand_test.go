package csi_test

import (
	"math"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

func expandRequest(v *spec.Volume, size int64) *spec.ControllerExpandVolumeRequest {
	return &spec.ControllerExpandVolumeRequest{VolumeId: v.GetVolumeId(), CapacityRange: &spec.CapacityRange{RequiredBytes: size}}
}

func (l *lab) expand(t testing.TB, v *spec.Volume, size int64) (int64, error) {
	r, err := l.ControllerExpandVolume(t.Context(), expandRequest(v, size))
	return r.GetCapacityBytes(), err
}

func (l *lab) sizeOf(t testing.TB, v *spec.Volume) int64 {
	t.Helper()
	return got[*spec.ControllerGetVolumeResponse](t)(l.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: v.GetVolumeId()})).GetVolume().GetCapacityBytes()
}

func TestControllerExpandVolume(t *testing.T) {
	l := run(t)
	blockSize := l.set(t, 0).BlockSize()
	v, raw := l.volume(t, "v"), l.volume(t, "raw", access(block()))
	for _, test := range []struct {
		least, most, size int64
		code              codes.Code
	}{
		{gib, 0, gib, codes.OK},
		{gib + 1, 0, gib + blockSize, codes.OK},
		{gib + 1, gib + blockSize, gib + blockSize, codes.OK},
		{gib / 2, 0, gib + blockSize, codes.OK}, // it never shrinks
		{0, 0, gib + blockSize, codes.OK},
		{0, 4 * gib, gib + blockSize, codes.OK},
		{0, gib, 0, codes.OutOfRange},
		{gib + blockSize + 1, gib + 2*blockSize - 1, 0, codes.OutOfRange},
		{-1, 0, 0, codes.InvalidArgument},
		{0, -1, 0, codes.InvalidArgument},
		{3 * gib, 2 * gib, 0, codes.InvalidArgument},
		{2 * gib, 2 * gib, 2 * gib, codes.OK},
		{2 * gib, 0, 2 * gib, codes.OK},
		{1 << 60, 0, 0, codes.OutOfRange},
		{1<<60 + 1, 0, 0, codes.OutOfRange},
		{math.MaxInt64, 0, 0, codes.OutOfRange},
		{math.MaxInt64 - blockSize, math.MaxInt64, 0, codes.OutOfRange},
	} {
		for of, needs := range map[*spec.Volume]bool{v: true, raw: false} {
			r := expandRequest(of, test.least)
			r.CapacityRange.LimitBytes = test.most
			before := l.sizeOf(t, of)
			a, err := l.ControllerExpandVolume(t.Context(), r)
			if refuses(t, err, test.code); err != nil {
				equals(t, "size", l.sizeOf(t, of), before)
				continue
			}
			equals(t, "size, and what the node has to do", []any{a.GetCapacityBytes(), a.GetNodeExpansionRequired()}, []any{test.size, needs})
			equals(t, "size", l.sizeOf(t, of), test.size)
		}
	}
	for _, id := range append(badIDs(v.GetVolumeId()), v.GetVolumeId()+"x", l.snapshot(t, "s", v).GetSnapshotId()) {
		_, err := l.expand(t, &spec.Volume{VolumeId: id}, 2*gib)
		refuses(t, err, codes.NotFound)
	}
	_, err := l.expand(t, nil, 2*gib)
	refuses(t, err, codes.InvalidArgument, "volume_id")
	_, err = l.ControllerExpandVolume(t.Context(), &spec.ControllerExpandVolumeRequest{VolumeId: v.GetVolumeId()})
	refuses(t, err, codes.InvalidArgument, "capacity_range")

	// A use that it was not made for is the request's fault, and never FAILED_PRECONDITION,
	// which the resizer takes for "only while it is offline".
	for _, c := range []*spec.VolumeCapability{block(), mount("xfs"), mount("", rwx), {}} {
		r := expandRequest(v, 3*gib)
		r.VolumeCapability = c
		_, err := l.ControllerExpandVolume(t.Context(), r)
		refuses(t, err, codes.InvalidArgument)
	}
	r := expandRequest(v, 2*gib)
	r.VolumeCapability = mount("ext4")
	got[*spec.ControllerExpandVolumeResponse](t)(l.ControllerExpandVolume(t.Context(), r))
}

// A device grows while it is used.
func TestExpandWhileMounted(t *testing.T) {
	l := run(t)
	v := l.volume(t, "v")
	must(t, l.stage(t, v, mount("")))
	have, err := l.expand(t, v, 2*gib)
	must(t, err)
	equals(t, "size", have, 2*gib)
	info, _, err := l.set(t, 0).ActiveDevice(device(v.GetVolumeId()))
	must(t, err)
	table, err := dm.ByName(l.world.Kernel(), info.Name).Table()
	must(t, err)
	equals(t, "table", table.Length().Bytes(), 2*gib)
	must(t, l.unstage(t, v))
}

// What can never fit is OUT_OF_RANGE, so that the user may ask for less; what cannot fit
// now is INTERNAL, and asked for again.
func TestExpandBeyondThePool(t *testing.T) {
	l := runOn(t, csitest.NewWorldOf(t.TempDir(), 4*gib))
	v := l.volume(t, "v")
	other := l.volume(t, "other", size(2*gib, 0))
	l.unchanged(t, func() {
		_, err := l.expand(t, v, 4*gib+1)
		refuses(t, err, codes.OutOfRange, "never")
		_, err = l.expand(t, v, 4*gib)
		refuses(t, err, codes.Internal, "now")
	})
	equals(t, "size", l.sizeOf(t, v), gib)
	have, err := l.expand(t, v, 2*gib) // as it is after the user asked for less
	must(t, err)
	equals(t, "size", have, 2*gib)
	must(t, l.deleteVolume(t, other))
	have, err = l.expand(t, v, 4*gib)
	must(t, err)
	equals(t, "size", have, 4*gib)
}

// A pool may grow for a volume, as far as it is said to.
func TestExpandWithThePool(t *testing.T) {
	w := csitest.NewWorldOf(t.TempDir(), 4*gib)
	w.MostBytes = 6 * gib
	l := runOn(t, w)
	v, other := l.volume(t, "v"), l.volume(t, "other", size(3*gib, 0))

	_, err := l.expand(t, v, 2*gib) // the disk is not as large yet
	refuses(t, err, codes.Internal, "now")
	w.DiskAt(csitest.DataDisk("default")).Grow(dm.SectorsIn(6 * gib))
	equals(t, "data", l.set(t, 0).Status().Data.Total, uint64(4*gib))

	have, err := l.expand(t, v, 2*gib)
	must(t, err)
	equals(t, "size", have, 2*gib)
	equals(t, "data", l.set(t, 0).Status().Data.Total, uint64(5*gib))
	have, err = l.expand(t, v, 2*gib)
	must(t, err)
	equals(t, "again", []int64{have, int64(l.set(t, 0).Status().Data.Total)}, []int64{2 * gib, 5 * gib})

	_, err = l.expand(t, v, 7*gib)
	refuses(t, err, codes.OutOfRange, "never")
	_, err = l.expand(t, v, 5*gib) // but for the other it would fit
	refuses(t, err, codes.Internal, "now")
	have, err = l.expand(t, v, 3*gib)
	must(t, err)
	equals(t, "as far as it may", []int64{have, int64(l.set(t, 0).Status().Data.Total)}, []int64{3 * gib, 6 * gib})
	must(t, l.deleteVolume(t, other))
	have, err = l.expand(t, v, 6*gib)
	must(t, err)
	equals(t, "size", have, 6*gib)
}

// A pool that is out of data space grows nothing, and the code says to ask again.
func TestExpandOnAFullPool(t *testing.T) {
	t.Parallel()
	l := runOn(t, csitest.NewWorldOf(t.TempDir(), 64*mib), "dm.overprovision_ratio=40")
	v := l.volume(t, "v", size(64*mib, 0))
	filler := l.fillPool(t)
	_, err := l.expand(t, v, 128*mib)
	refuses(t, err, codes.Internal, "now")
	have, err := l.expand(t, v, 64*mib)
	must(t, err)
	equals(t, "what it has", have, 64*mib)
	must(t, l.unstage(t, filler))
	must(t, l.deleteVolume(t, filler))
	have, err = l.expand(t, v, 128*mib)
	must(t, err)
	equals(t, "size", have, 128*mib)
}
