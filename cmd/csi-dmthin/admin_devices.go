package main

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A deviceList is the devices of all pools that could tell them.
type deviceList struct {
	Devices []listedDevice `json:"devices"`
	Missing []missingPool  `json:"missing,omitempty"`
}

// A missingPool is one whose devices are not listed.
type missingPool struct {
	Pool    string `json:"pool"`
	Problem string `json:"problem"`
}

// A listedDevice is a volume or a snapshot. Sizes are bytes.
type listedDevice struct {
	Name        string      `json:"name"` // that the orchestrator gave it
	Kind        string      `json:"kind"` // volume, snapshot or other
	Pool        string      `json:"pool"`
	ID          string      `json:"id,omitempty"` // the orchestrator's
	Device      string      `json:"device"`
	ThinID      dm.DeviceID `json:"thinID"`
	BlockDevice string      `json:"blockDevice"` // in /dev/mapper, while it is active
	Size        int64       `json:"size"`
	Used        *int64      `json:"used,omitempty"`      // of the pool, shared with others or not
	Exclusive   *int64      `json:"exclusive,omitempty"` // what its deletion frees, when it was last measured
	Source      string      `json:"source,omitempty"`    // the device that it was made from
	SourceGone  bool        `json:"sourceGone,omitempty"`
	FileSystem  string      `json:"fileSystem,omitempty"`
	Formatted   bool        `json:"formatted"`
	Block       bool        `json:"block,omitempty"` // it is used without a file system
	Adopted     bool        `json:"adopted,omitempty"`
	Created     time.Time   `json:"created"`
	Problem     string      `json:"problem,omitempty"` // why it may not be used
}

// devices lists the devices of pools, sorted by pool and device.
func (a *admin) devices(pool string) (list deviceList, err error) {
	pools, err := a.named(pool)
	if err != nil {
		return list, err
	}
	list.Devices = []listedDevice{}
	for _, part := range eachPool(pools, devicesOf, func(p *csi.Pool) deviceList { return missing(p, hangs) }) {
		list.Devices = append(list.Devices, part.Devices...)
		list.Missing = append(list.Missing, part.Missing...)
	}
	return list, nil
}

func missing(p *csi.Pool, problem string) deviceList {
	return deviceList{Missing: []missingPool{{p.Name, problem}}}
}

func devicesOf(p *csi.Pool) (list deviceList) {
	layers, err := p.Now()
	if errors.As(err, new(*csi.EmptyPool)) {
		return deviceList{}
	}
	if err != nil {
		return missing(p, err.Error())
	}
	usage, _ := layers.Usage() // without figures, what is known is told
	all := allDevices(layers)
	made := map[string]uint64{}
	for _, d := range all {
		made[d.Name] = d.TransactionID
	}
	for _, d := range all {
		l := present(p, layers, d)
		if u, ok := usage[d.Name]; ok {
			l.Used = &u.Mapped
			if u.ExclusiveKnown {
				l.Exclusive = &u.Exclusive
			}
		}
		// A source is older. What is younger has got the name of one that is gone.
		source, there := made[l.Source]
		l.SourceGone = l.Source != "" && (!there || source >= d.TransactionID)
		list.Devices = append(list.Devices, l)
	}
	return list
}

func allDevices(layers *graphdriver.Driver) []deviceset.Device {
	all, _ := layers.Devices("", int(^uint(0)>>1)) // that many are one page
	slices.SortFunc(all, func(a, b deviceset.Device) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func present(p *csi.Pool, layers *graphdriver.Driver, d deviceset.Device) listedDevice {
	what := p.Present(d)
	l := listedDevice{
		Name: what.Name, Kind: what.Kind, Pool: p.Name, ID: what.ID, Device: d.Name, ThinID: d.ID, BlockDevice: layers.DMName(d.ID),
		Size: d.Size, Source: what.Source, FileSystem: what.FS, Formatted: what.Formatted, Block: what.Block,
		Adopted: d.Adopted, Created: d.Created.UTC(),
	}
	if d.Err != nil {
		l.Problem = d.Err.Error()
	}
	return l
}
