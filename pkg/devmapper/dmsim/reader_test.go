package dmsim_test

import (
	"errors"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// reader is what both kinds of metadata can be asked.
type reader interface {
	Superblock() (thinmeta.Superblock, error)
	Devices() ([]thinmeta.Device, error)
	Device(dm.DeviceID) (thinmeta.Device, error)
	Ranges(dm.DeviceID) ([]thinmeta.Range, error)
	Extent(dm.DeviceID) (thinmeta.Blocks, error)
	Exclusive(dm.DeviceID) ([]thinmeta.Range, error)
	Close() error
}

var _ = []reader{(*thinmeta.Metadata)(nil), (*dmsim.Metadata)(nil)}

func (m *machineWithPool) metadata(t *testing.T) reader {
	t.Helper()
	r, err := m.meta.Metadata()
	must(t, err)
	return r
}

// answers fails unless a question is answered as wanted.
func answers[T any](t *testing.T, want T) func(T, error) {
	t.Helper()
	return func(have T, err error) {
		t.Helper()
		must(t, err)
		if !reflect.DeepEqual(have, want) {
			t.Errorf("the answer is %+v, want %+v", have, want)
		}
	}
}

func TestMetadataIsOfTheLastCommit(t *testing.T) {
	m := newMachineWithPool(t)
	r := m.metadata(t)
	must(t, m.pool.CreateThin(3))
	must(t, m.pool.SetTransactionID(0, 7))
	must(t, m.pool.CreateThin(1))
	f := m.open(t, 3)
	size := dm.MinBlockSize.Bytes()
	for _, block := range []int64{9, 0, 1, 4} {
		write(t, f, block*size, 1)
	}
	answers(t, thinmeta.Device{ID: 3})(r.Device(3)) // its blocks are not committed
	answers(t, []thinmeta.Range(nil))(r.Ranges(3))
	answers(t, thinmeta.Blocks(0))(r.Extent(3))

	must(t, m.pool.CreateSnap(2, 3))
	write(t, f, 4*size, 2)
	write(t, f, 5*size, 2)
	must(t, f.Sync())
	must(t, f.Discard(0, size))
	answers(t, []thinmeta.Device{
		{ID: 1, TransactionID: 7},
		{ID: 2, Mapped: 4, TransactionID: 7, Created: 1, Snapshotted: 1},
		{ID: 3, Mapped: 5, Snapshotted: 1},
	})(r.Devices())
	answers(t, []thinmeta.Range{{Begin: 0, Length: 2}, {Begin: 4, Length: 2}, {Begin: 9, Length: 1}})(r.Ranges(3))
	answers(t, thinmeta.Blocks(10))(r.Extent(3))
	answers(t, []thinmeta.Range{{Begin: 4, Length: 2}})(r.Exclusive(3))
	answers(t, []thinmeta.Range{{Begin: 4, Length: 1}})(r.Exclusive(2))
	answers(t, []thinmeta.Range(nil))(r.Exclusive(1))

	s, err := r.Superblock()
	must(t, err)
	want := thinmeta.Superblock{
		TransactionID: 7, Time: 1, BlockSize: dm.MinBlockSize,
		Data: dm.Usage{Used: 6, Total: 16}, Metadata: dm.Usage{Used: 20, Total: 512},
	}
	if s != want {
		t.Errorf("the superblock is %+v, want %+v", s, want)
	}
	must(t, m.pool.ReserveMetadataSnap())
	if s, err := r.Superblock(); err != nil || s.HeldRoot == 0 {
		t.Errorf("the superblock is %+v, error %v", s, err)
	}
	answers(t, []thinmeta.Range(nil))(r.Exclusive(2)) // the held snapshot owns it too
}

func TestMetadataThroughDevices(t *testing.T) {
	k := dmsim.New()
	meta, data := k.NewDisk(4096), k.NewDisk(poolSize)
	below, err := dm.Activate(k, "meta", "", dm.Table{
		{Length: 1024, Target: dm.Linear{Dev: meta.Dev()}},
		{Start: 1024, Length: 1024, Target: dm.Linear{Dev: meta.Dev(), Start: 2048}},
	})
	must(t, err)
	info, err := below.Info()
	must(t, err)
	if _, err := k.MetadataOf(info.Dev); !errors.Is(err, thinmeta.ErrBlank) {
		t.Errorf("zeros: error is %v", err)
	}
	device, err := dm.Activate(k, "pool", "", dm.Whole(poolSize, dm.ThinPool{
		Metadata: info.Dev, Data: data.Dev(), BlockSize: dm.MinBlockSize,
	}))
	must(t, err)
	must(t, dm.Pool{Device: device}.CreateThin(1))
	for _, dev := range []dm.DevNo{info.Dev, meta.Dev()} {
		r, err := k.MetadataOf(dev)
		must(t, err)
		answers(t, []thinmeta.Device{{ID: 1}})(r.Devices())
		opened, err := below.Info()
		must(t, err)
		if want := info.OpenCount + 1; dev == info.Dev && opened.OpenCount != want+1 {
			t.Errorf("%s is open %d times", dev, opened.OpenCount)
		}
		must(t, r.Close())
		must(t, r.Close())
	}
	if _, err := k.MetadataOf(dm.MakeDevNo(dmsim.Major, 99)); !errors.Is(err, unix.ENXIO) {
		t.Errorf("no such device: error is %v", err)
	}
}

func TestMetadataThatIsNone(t *testing.T) {
	m := newMachineWithPool(t)
	r := m.metadata(t)
	_, err := r.Device(1)
	if !errors.Is(err, thinmeta.ErrNoSuchDevice) || err.Error() != "240:0: device 1: no such thin device: 1" {
		t.Errorf("no such device: error is %v", err)
	}
	m.meta.Fail(true, false)
	if _, err := r.Devices(); !errors.Is(err, unix.EIO) {
		t.Errorf("a dying disk: error is %v", err)
	}
	m.meta.Fail(false, false)
	f, err := m.Open(m.meta.Dev())
	must(t, err)
	write(t, f, 0, 0)
	if _, err := r.Superblock(); !errors.Is(err, thinmeta.ErrBlank) {
		t.Errorf("zeros: error is %v", err)
	}
	write(t, f, 0, 1)
	var corrupt *thinmeta.CorruptError
	if _, err := m.meta.Metadata(); !errors.As(err, &corrupt) {
		t.Errorf("noise: error is %v", err)
	}
}
