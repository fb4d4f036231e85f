package csi_test

import (
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// badIDs are what no volume and no snapshot can be called, though some of them nearly
// could.
func badIDs(good string) []string {
	key, name, _ := strings.Cut(good, ".")
	return []string{
		"fake-vol-id", ".", "..", "../" + good, good + "/", good + " ", " " + good, good + "\n", key, key + ".", "." + name, key + "." + "v-", key + ".v-A",
		strings.ToUpper(key) + "." + name, key[1:] + "." + name, "0" + key + "." + name, key + ".." + name, key + ".@base-ext4", key + ".w-a", key + ".vx-a",
		key + ".v-" + strings.Repeat("a", 64), key + ".v-a%00", key + ".v-ä", good + "\x00", strings.Repeat("a", 4096), "%s", "0000\u202e",
	}
}

func TestDeleteVolume(t *testing.T) {
	t.Parallel()
	l := run(t)
	v := l.volume(t, "v")
	s := l.snapshot(t, "s", v)

	t.Run("one that is not there, or no id of ours", func(t *testing.T) {
		l.unchanged(t, func() {
			for _, id := range append(badIDs(v.GetVolumeId()), v.GetVolumeId()+"x", s.GetSnapshotId()) {
				must(t, l.deleteVolume(t, &spec.Volume{VolumeId: id}))
			}
			for _, id := range append(badIDs(s.GetSnapshotId()), s.GetSnapshotId()+"x", v.GetVolumeId()) {
				must(t, l.deleteSnapshot(t, &spec.Snapshot{SnapshotId: id}))
			}
		})
	})
	t.Run("no id at all", func(t *testing.T) {
		refuses(t, l.deleteVolume(t, nil), codes.InvalidArgument, "volume_id")
		refuses(t, l.deleteSnapshot(t, nil), codes.InvalidArgument, "snapshot_id")
	})
	t.Run("of a pool that is not here", func(t *testing.T) {
		const elsewhere = "0123456789abcdef0123456789abcdef."
		refuses(t, l.deleteVolume(t, &spec.Volume{VolumeId: elsewhere + "v-a"}), codes.Unavailable, elsewhere[:32])
		refuses(t, l.deleteSnapshot(t, &spec.Snapshot{SnapshotId: elsewhere + "s-a"}), codes.Unavailable, elsewhere[:32])
	})
	t.Run("while it is staged or published", func(t *testing.T) {
		for name, c := range map[string]*spec.VolumeCapability{"mount": mount(""), "block": block()} {
			v := l.volume(t, name, access(c))
			must(t, l.stage(t, v, c))
			must(t, l.publish(t, v, "pod", c))
			l.unchanged(t, func() { refuses(t, l.deleteVolume(t, v), codes.FailedPrecondition, "published") })
			must(t, l.unpublish(t, v, "pod"))
			if name == "mount" {
				l.unchanged(t, func() { refuses(t, l.deleteVolume(t, v), codes.FailedPrecondition, l.staging(v)) })
			}
			must(t, l.unstage(t, v))
			must(t, l.deleteVolume(t, v))
		}
	})
	t.Run("while somebody has a block device open", func(t *testing.T) {
		v := l.volume(t, "open", access(block()))
		must(t, l.stage(t, v, block()))
		info, _, err := l.set(t, 0).ActiveDevice(device(v.GetVolumeId()))
		must(t, err)
		f, err := l.world.Kernel().Open(info.Dev)
		must(t, err)
		l.unchanged(t, func() { refuses(t, l.deleteVolume(t, v), codes.FailedPrecondition, "in use") })
		refuses(t, l.unstage(t, v), codes.FailedPrecondition, "in use")
		must(t, f.Close())
		must(t, l.unstage(t, v))
		must(t, l.deleteVolume(t, v))
	})
	t.Run("what was made from it stays", func(t *testing.T) {
		of := l.volume(t, "of", access(block()))
		must(t, l.stage(t, of, block()))
		must(t, l.writes(t, of, 3))
		snapshot := l.snapshot(t, "of", of)
		clone := l.volume(t, "clone", access(block()), fromVolume(of))
		must(t, l.unstage(t, of))
		for range 2 {
			must(t, l.deleteVolume(t, of))
		}
		_, err := l.ControllerGetVolume(t.Context(), &spec.ControllerGetVolumeRequest{VolumeId: of.GetVolumeId()})
		refuses(t, err, codes.NotFound)
		restored := l.volume(t, "restored", access(block()), fromSnapshot(snapshot))
		for range 2 {
			must(t, l.deleteSnapshot(t, snapshot))
		}
		for _, v := range []*spec.Volume{clone, restored} {
			st, err := l.set(t, 0).GetDeviceStatus(device(v.GetVolumeId()))
			must(t, err)
			equals(t, "blocks", int64(st.MappedSectors)*512, 3*l.set(t, 0).BlockSize())
			must(t, l.deleteVolume(t, v))
		}
	})
	t.Run("its name is free at once", func(t *testing.T) {
		first := l.volume(t, "again", size(gib, 0))
		must(t, l.deleteVolume(t, first))
		second := l.volume(t, "again", size(2*gib, 0))
		equals(t, "id and size", []any{second.GetVolumeId(), second.GetCapacityBytes()}, []any{first.GetVolumeId(), 2 * gib})
		must(t, l.deleteVolume(t, second))
	})
	must(t, l.deleteVolume(t, v))
	must(t, l.deleteSnapshot(t, s))
	equals(t, "thin devices", l.thins(t), 1) // the label
}
