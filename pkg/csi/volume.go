package csi

import (
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// What is written down with a device, as labels.
const (
	labelName    = "name"    // the orchestrator's
	labelAccess  = "access"  // "block" or "mount"
	labelFS      = "fs"      // what it is to be formatted with
	labelMkfs    = "mkfs"    // and how
	labelDiscard = "discard" // "true"
	labelSource  = "source"  // the device that it was made from
	labelBlank   = "blank"   // "true" of a snapshot of what was blank
)

const (
	accessBlock = "block"
	accessMount = "mount"
)

// A volume is a device that is a volume or a snapshot.
type volume struct {
	deviceset.Device
	pool   *Pool
	layers *graphdriver.Driver
}

// find returns what an id names.
func (d *Driver) find(k plugin.Kind, text string) (volume, error) {
	i, err := plugin.ParseID(k, text)
	if err != nil {
		return volume{}, err
	}
	p, layers, err := d.pools.of(i)
	if err != nil {
		return volume{}, err
	}
	device, err := layers.Device(i.Device)
	return volume{device, p, layers}, err
}

func (v *volume) id() string { return plugin.ID{Pool: v.pool.Key(), Device: v.Name}.String() }

func (v volume) isBlock() bool { return v.Labels[labelAccess] == accessBlock }

// blank reports whether nobody can have written to v: a volume for a file system that
// it does not have yet, or a snapshot of one. What was formatted before the snapshot
// was cut, it has.
func (v volume) blank() bool {
	return !v.isBlock() && v.FS == "none" && !v.Adopted && (v.Parent == "" || v.Labels[labelBlank] == "true")
}

// sourceID returns the id of what v was made from; it need not be there any more.
func (v *volume) sourceID() string {
	source := v.Labels[labelSource]
	if source == "" {
		return ""
	}
	return plugin.ID{Pool: v.pool.Key(), Device: source}.String()
}

func (d *Driver) presentVolume(v *volume) *csi.Volume {
	present := &csi.Volume{VolumeId: v.id(), CapacityBytes: v.Size, AccessibleTopology: d.places}
	source := v.Labels[labelSource]
	switch plugin.KindOf(source) {
	case plugin.Volume:
		present.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.sourceID()},
		}}
	case plugin.Snapshot:
		present.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.sourceID()},
		}}
	}
	return present
}

func presentSnapshot(v volume) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: v.id(), SourceVolumeId: v.sourceID(), SizeBytes: v.Size,
		CreationTime: timestamppb.New(v.Created), ReadyToUse: true,
	}
}

func (v volume) String() string { return fmt.Sprintf("%s in pool %s", v.Name, v.pool.Name) }
