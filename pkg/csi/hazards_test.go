package csi_test

import (
	"errors"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A call that was answered is answered again, though what it was made from is gone.
func TestRepeatWithoutItsSource(t *testing.T) {
	l := run(t)
	a := l.volume(t, "a")
	s := l.snapshot(t, "s", a)
	b := l.volume(t, "b", fromSnapshot(s))
	c := l.volume(t, "c", fromVolume(a))
	must(t, errors.Join(l.deleteVolume(t, a), l.deleteSnapshot(t, s)))
	equals(t, "restored", l.volume(t, "b", fromSnapshot(s)), b)
	equals(t, "cloned", l.volume(t, "c", fromVolume(a)), c)
	_, err := l.tryVolume(t, "d", fromSnapshot(s))
	refuses(t, err, codes.NotFound)
	s2 := l.snapshot(t, "s2", b)
	must(t, l.deleteVolume(t, b))
	equals(t, "snapshot", l.snapshot(t, "s2", b), s2)
	_, err = l.tryVolume(t, "c")
	refuses(t, err, codes.AlreadyExists)
}

// A device that an operator gave a volume's name has nothing written down of what it is
// for, and can be used in every way.
func TestAdoptedVolume(t *testing.T) {
	l := run(t)
	a := l.volume(t, "a")
	d, err := l.set(t, 0).Device(device(a.GetVolumeId()))
	must(t, err)
	must(t, l.pool(t).CreateSnap(7000, d.ID))
	must(t, l.set(t, 0).AdoptDevice(7000, "v-found", 0))
	found := &spec.Volume{VolumeId: a.GetVolumeId()[:33] + "v-found"}
	s := l.snapshot(t, "s", found)
	must(t, l.stage(t, found, block()))
	must(t, l.unstage(t, found))
	must(t, errors.Join(l.deleteSnapshot(t, s), l.deleteVolume(t, found)))
}

// What a volume may become goes by the ratio: of what the pool has, or may have.
func TestExpandByRatio(t *testing.T) {
	w := csitest.NewWorldOf(t.TempDir(), 8*gib)
	w.MostBytes = 9 * gib
	l := runOn(t, w, "dm.overprovision_ratio=2")
	v := l.volume(t, "v", size(gib, 0))
	other := l.volume(t, "other", size(4*gib, 0))
	equals(t, "within the ratio", must1(l.expand(t, v, 12*gib)), 12*gib)
	_, err := l.expand(t, v, 19*gib) // of 18, if the pool grew
	refuses(t, err, codes.OutOfRange)
	_, err = l.expand(t, v, 15*gib) // which others have
	refuses(t, err, codes.Internal)
	must(t, l.deleteVolume(t, other))
	equals(t, "after a delete", must1(l.expand(t, v, 15*gib)), 15*gib)
}

// A disk that is missing is no open pool, and waited for.
func TestPoolWithoutItsDisk(t *testing.T) {
	missing := errors.New("there is no such disk")
	p := &csi.Pool{Name: "p", Open: func() (*graphdriver.Driver, error) { return nil, missing }}
	if err := p.TryOpen(); !errors.Is(err, missing) {
		t.Errorf("error is %v", err)
	}
	if _, err := p.Layers(); !errors.Is(err, deviceset.ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
}

// A pool that takes no changes has a new volume made elsewhere. What it was just asked for,
// when it failed, it may have made.
func TestCreateOnAnIllPool(t *testing.T) {
	l := run(t)
	must(t, l.deleteVolume(t, l.volume(t, "a")))
	l.world.DiskAt(csitest.MetadataDisk("default")).Fail(false, true)
	_, err := l.tryVolume(t, "x")
	refuses(t, err, codes.Unavailable)
	_, err = l.tryVolume(t, "b")
	refuses(t, err, codes.ResourceExhausted)
	_, err = l.tryVolume(t, "x")
	refuses(t, err, codes.Unavailable)
	l.world.DiskAt(csitest.MetadataDisk("default")).Fail(false, false)
}

// A journal that could not be written is opened anew, without anybody's help.
func TestPoisonedJournal(t *testing.T) {
	l := run(t)
	go l.Driver.Watch(t.Context(), 0)
	l.volume(t, "a")
	l.world.RefuseWrites(errors.New("an I/O error"))
	_, err := l.tryVolume(t, "b")
	refuses(t, err, codes.Unavailable)
	l.world.RefuseWrites(nil)
	comesTrue(t, "the pool to work again", func() bool {
		_, err := l.tryVolume(t, "c")
		return err == nil
	})
	if n := len(l.volumes(t)); n < 2 {
		t.Errorf("%d volumes are there", n)
	}
}
