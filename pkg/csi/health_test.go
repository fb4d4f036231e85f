package csi_test

import (
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// health returns what is wrong with a volume, each as status and reason.
func (l *lab) health(t testing.TB, v *spec.Volume) (all []string) {
	t.Helper()
	h := got[*spec.NodeGetVolumeHealthResponse](t)(l.NodeGetVolumeHealth(t.Context(), &spec.NodeGetVolumeHealthRequest{VolumeId: v.GetVolumeId()})).GetVolumeHealth()
	equals(t, "id", h.GetVolumeId(), v.GetVolumeId())
	for _, e := range h.GetHealthStatuses() {
		if e.GetMessage() == "" {
			t.Errorf("%s has no message", e.GetReason())
		}
		all = append(all, e.GetStatus().String()+" "+e.GetReason())
	}
	return all
}

// storageHealth is what is wrong with the pools.
func (l *lab) storageHealth(t testing.TB) (all []string) {
	t.Helper()
	a := got[*spec.NodeGetStorageHealthResponse](t)(l.NodeGetStorageHealth(t.Context(), &spec.NodeGetStorageHealthRequest{}))
	seen := map[string]bool{}
	for _, b := range a.GetBackendHealth() {
		if seen[b.GetReason()] || b.GetMessage() == "" {
			t.Errorf("%s comes twice, or without message", b.GetReason())
		}
		seen[b.GetReason()] = true
		all = append(all, b.GetStatus().String()+" "+b.GetReason())
	}
	return all
}

// ails fails unless the pool and a volume of it have just that.
func (l *lab) ails(t testing.TB, v *spec.Volume, conditions ...string) {
	t.Helper()
	var volume, pool []string
	for _, c := range conditions {
		volume = append(volume, c)
		status, reason, _ := strings.Cut(c, " ")
		pool = append(pool, map[string]string{"DEGRADED": "STORAGE_DEGRADED", "INACCESSIBLE": "STORAGE_UNREACHABLE"}[status]+" "+reason)
	}
	equals(t, "health of the volume", l.health(t, v), volume)
	equals(t, "health of the pool", l.storageHealth(t), pool)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	small := func(t *testing.T, options ...string) (*lab, *spec.Volume) {
		l := runOn(t, csitest.NewWorldOf(t.TempDir(), 64*mib), append(options, "dm.overprovision_ratio=40")...)
		v := l.volume(t, "v", size(8*mib, 0))
		l.ails(t, v)
		return l, v
	}
	t.Run("nearly full, then full", func(t *testing.T) {
		l, v := small(t)
		raw := l.volume(t, "raw", access(block()))
		must(t, l.stage(t, raw, block()))
		status := l.set(t, 0).Status()
		must(t, l.writes(t, raw, (int64(status.Data.Total)*9/10-int64(status.Data.Used))/l.set(t, 0).BlockSize()+1))
		l.ails(t, v, "DEGRADED PoolNearlyFull")
		l.fillPool(t)
		l.ails(t, v, "INACCESSIBLE PoolFull")
		must(t, l.unstage(t, raw))
		must(t, l.deleteVolume(t, raw))
		equals(t, "mode", l.set(t, 0).Status().Mode, "rw")
	})
	t.Run("a metadata disk that fails to write", func(t *testing.T) {
		l, v := small(t)
		disk := l.world.DiskAt(csitest.MetadataDisk("default"))
		disk.Fail(false, true)
		_, err := l.tryVolume(t, "x", size(mib, 0))
		refuses(t, err, codes.Unavailable)
		l.ails(t, v, "INACCESSIBLE PoolReadOnly", "DEGRADED PoolNeedsCheck")
		equals(t, "capacity", l.capacity(t, &spec.GetCapacityRequest{}), int64(0))
		disk.Fail(false, false)
		equals(t, "volumes", l.volumes(t), []string{v.GetVolumeId()})
	})
	t.Run("and to read", func(t *testing.T) {
		l, v := small(t)
		disk := l.world.DiskAt(csitest.MetadataDisk("default"))
		disk.Fail(true, true)
		_, err := l.tryVolume(t, "x", size(mib, 0))
		refuses(t, err, codes.Unavailable)
		l.ails(t, v, "INACCESSIBLE PoolFailed")
		disk.Fail(false, false)
	})
	t.Run("short of metadata", func(t *testing.T) {
		l, v := small(t)
		pool := l.pool(t)
		var err error
		for id := dm.DeviceID(1 << 20); err == nil; id++ {
			err = pool.CreateThin(id)
		}
		has := func(reason string) bool { return strings.Contains(strings.Join(l.health(t, v), " "), reason) }
		if !has("MetadataNearlyFull") && !has("PoolReadOnly") { // unless it was relieved at once
			t.Errorf("its health is %v", l.health(t, v))
		}
	})
	t.Run("changed by somebody else", func(t *testing.T) {
		l, v := small(t)
		must(t, l.deleteVolume(t, l.volume(t, "later", size(mib, 0)))) // which writes down how the first ended
		status, err := l.pool(t).PoolStatus()
		must(t, err)
		must(t, l.pool(t).SetTransactionID(status.TransactionID, status.TransactionID+5))
		l.world.Kill()
		_ = l.Driver.Close() // it is dead
		l.Node = l.world.Run(t)
		l.ails(t, v, "DEGRADED PoolNotTrusted")
		_, err = l.tryVolume(t, "x", size(mib, 0))
		refuses(t, err, codes.ResourceExhausted) // another node's pool may take it
		_, err = l.tryVolume(t, "x", size(0, 0), fromVolume(v))
		refuses(t, err, codes.Unavailable)
		_, err = l.trySnapshot(t, "x", v)
		refuses(t, err, codes.Unavailable)
		refuses(t, l.deleteVolume(t, v), codes.Unavailable)
		equals(t, "capacity", l.capacity(t, &spec.GetCapacityRequest{}), int64(0))
		equals(t, "volumes", l.volumes(t), []string{v.GetVolumeId()})
	})
	t.Run("lost by the pool, or another's", func(t *testing.T) {
		l, v := small(t)
		lost, replaced := l.volume(t, "lost", size(mib, 0)), l.volume(t, "replaced", size(mib, 0))
		ids := map[*spec.Volume]dm.DeviceID{}
		for _, v := range []*spec.Volume{lost, replaced} {
			d, err := l.set(t, 0).Device(device(v.GetVolumeId()))
			must(t, err)
			ids[v] = d.ID
			must(t, l.pool(t).Delete(d.ID))
		}
		l.restart(t)
		must(t, l.pool(t).CreateThin(ids[replaced]))
		l.restart(t)
		equals(t, "well", l.health(t, v), []string(nil))
		equals(t, "lost", l.health(t, lost), []string{"DATA_LOSS VolumeLost"})
		equals(t, "replaced", l.health(t, replaced), []string{"INACCESSIBLE VolumeQuarantined"})
		for _, v := range []*spec.Volume{lost, replaced} {
			_, err := l.tryVolume(t, device(v.GetVolumeId())[2:], size(mib, 0))
			refuses(t, err, codes.FailedPrecondition)
			_, err = l.trySnapshot(t, "x", v)
			refuses(t, err, codes.FailedPrecondition)
			refuses(t, l.stage(t, v, mount("")), codes.FailedPrecondition)
		}
		must(t, l.deleteVolume(t, lost))
		refuses(t, l.deleteVolume(t, replaced), codes.FailedPrecondition, "quarantined")
	})
	t.Run("of no volume", func(t *testing.T) {
		l, v := small(t)
		for _, id := range append(badIDs(v.GetVolumeId()), v.GetVolumeId()+"x", l.snapshot(t, "s", v).GetSnapshotId()) {
			equals(t, id, code(t, l.NodeGetVolumeHealth, &spec.NodeGetVolumeHealthRequest{VolumeId: id}), codes.NotFound)
		}
		equals(t, "no id", code(t, l.NodeGetVolumeHealth, &spec.NodeGetVolumeHealthRequest{}), codes.InvalidArgument)
	})
}

// restart ends the process in order, and begins another.
func (l *lab) restart(t testing.TB) {
	t.Helper()
	must(t, l.Driver.Close())
	l.Node = l.world.Run(t)
}

// Several pools that have the same make one entry.
func TestHealthOfTwoPools(t *testing.T) {
	w := csitest.NewWorldOf(t.TempDir(), 256*mib)
	w.AddPool("fast", 256*mib)
	l := runOn(t, w)
	for _, pool := range w.Pools {
		disk := w.DiskAt(csitest.MetadataDisk(pool))
		disk.Fail(false, true)
		_, err := l.tryVolume(t, pool, size(mib, 0), inPool(pool))
		refuses(t, err, codes.Unavailable)
		disk.Fail(false, false)
	}
	equals(t, "health", l.storageHealth(t), []string{"STORAGE_UNREACHABLE PoolReadOnly", "STORAGE_DEGRADED PoolNeedsCheck"})
	a := got[*spec.NodeGetStorageHealthResponse](t)(l.NodeGetStorageHealth(t.Context(), &spec.NodeGetStorageHealthRequest{}))
	for _, b := range a.GetBackendHealth() {
		if !strings.Contains(b.GetMessage(), "default") || !strings.Contains(b.GetMessage(), "fast") {
			t.Errorf("%s: %s", b.GetReason(), b.GetMessage())
		}
	}
}
