package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

const (
	mib = int64(1) << 20
	gib = mib << 10

	setDataSize = 160 * gib // the label is of its full size, and is written in full
	setMetaSize = gib / 2
	volumeSize  = 256 * mib
	baseSize    = gib
)

// A setRig is a DeviceSet on disks of its own.
type setRig struct {
	*ground
	root    string
	options []string
	machine *machine
	set     *deviceset.DeviceSet
}

// newSetRig makes a DeviceSet. With forgetful set, its data disk keeps nothing but
// the label, so that mapping 64 GiB takes no memory.
func newSetRig(forgetful bool) (r *setRig, err error) {
	size := dm.SectorsIn(setDataSize)
	if forgetful {
		size = keptSize
	}
	g, err := newGround(dm.SectorsIn(setMetaSize), size)
	if err != nil {
		return nil, err
	}
	r = &setRig{ground: g, root: filepath.Join(g.dir, "root")}
	if err = r.choose(forgetful); err == nil {
		err = r.open()
	}
	return r, g.closeAfter(err)
}

// choose chooses the options.
func (r *setRig) choose(forgetful bool) error {
	metadata, err := nodeOf(r.disks[0])
	if err != nil {
		return err
	}
	data, err := nodeOf(r.disks[1])
	if err == nil && forgetful {
		data, err = r.makeForgetful()
	}
	r.options = []string{
		"dm.datadev=" + data, "dm.metadatadev=" + metadata,
		"dm.overprovision_ratio=0", fmt.Sprintf("dm.basesize=%d", baseSize),
	}
	return err
}

func nodeOf(d dmtest.Disk) (string, error) {
	link, err := os.Readlink("/sys/dev/block/" + d.Dev().String())
	return "/dev/" + filepath.Base(link), err
}

// keptSize is where a forgetful disk begins to forget: behind the label, which is
// 64 MiB large, and a block of the neighbour's.
const keptSize = dm.Sectors(66 * mib / dm.SectorSize)

func (r *setRig) makeForgetful() (path string, err error) {
	d, err := r.activate("bench-data", dm.Table{
		{Length: keptSize, Target: dm.Linear{Dev: r.disks[1].Dev()}},
		{Start: keptSize, Length: dm.SectorsIn(setDataSize) - keptSize, Target: dm.Zero{}},
	})
	if err != nil {
		return "", err
	}
	info, err := d.Info()
	return info.Node(), err
}

func (r *setRig) open() (err error) {
	if r.machine, err = newMachine(); err != nil {
		return err
	}
	if r.set, err = deviceset.Open(r.machine, r.root, true, r.options, nil, nil); err != nil {
		return errors.Join(err, r.machine.Close())
	}
	r.later(r.shutdown)
	return nil
}

// shutdown may be called again.
func (r *setRig) shutdown() error { return r.set.Shutdown(r.root) }

// blank makes a device without content.
func (r *setRig) blank(name string, size int64) error {
	return r.set.CreateDevice(name, "", deviceset.DeviceOptions{FS: "none", Size: size})
}

func (r *setRig) remove(name string) error { return r.set.DeleteDevice(name, true) }

// crowd makes n devices, 16 at once.
func (r *setRig) crowd(n int) error {
	_, err := inParallel(n, parallel, func(i int) error { return r.blank(fmt.Sprintf("crowd-%d", i), volumeSize) })
	return err
}

// directory makes an empty directory to mount at.
func (r *setRig) directory(name string) string {
	path := filepath.Join(r.dir, "mnt", name)
	_ = os.MkdirAll(path, 0o700) // a mount tells
	return path
}
