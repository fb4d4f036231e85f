package main

import (
	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A poolStatus is what an operator sees of a pool. Sizes are bytes.
type poolStatus struct {
	Pool    string `json:"pool"`
	Problem string `json:"problem,omitempty"` // why it is not open; then nothing else is known
	Retired bool   `json:"retired,omitempty"` // it is not in the configuration any more

	UUID       string `json:"uuid,omitempty"`
	Key        string `json:"key,omitempty"` // with which the ids of its volumes begin
	Mode       string `json:"mode,omitempty"`
	NeedsCheck bool   `json:"needsCheck,omitempty"`
	ReadOnly   string `json:"readOnly,omitempty"` // why nothing is changed

	Data             *fill     `json:"data,omitempty"`
	Metadata         *fill     `json:"metadata,omitempty"`
	MetadataHeldBack uint64    `json:"metadataHeldBack,omitempty"` // given when it runs short
	Promised         *promised `json:"promised,omitempty"`
	Room             int64     `json:"room"`             // how large a new volume can be
	GrowTo           int64     `json:"growTo,omitempty"` // how large the data may become for a volume; 0 is not at all
	DataOn           string    `json:"dataOn,omitempty"`
	MetadataOn       string    `json:"metadataOn,omitempty"`

	Devices          int           `json:"devices"`
	PendingDeletions uint          `json:"pendingDeletions"`
	OpenOperations   int           `json:"openOperations"`
	Snapshots        uint64        `json:"snapshots"` // taken so far
	Orphans          []dm.DeviceID `json:"orphans,omitempty"`
	Ghosts           []string      `json:"ghosts,omitempty"`
	Quarantined      []dm.DeviceID `json:"quarantined,omitempty"`
	Warnings         []string      `json:"warnings,omitempty"`
}

// A fill is how full something is.
type fill struct {
	Used      uint64 `json:"used"`
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"` // less than the rest, where a file system below has less
	KeptFree  uint64 `json:"keptFree"`  // of new volumes and snapshots
	Percent   int    `json:"keptFreePercent"`
	Option    string `json:"keptFreeBy"` // the option that says so
}

// promised is what volumes may come to hold.
type promised struct {
	Bytes uint64  `json:"bytes"`
	Limit uint64  `json:"limit"` // 0 is none
	Ratio float64 `json:"ratio"` // overprovision_ratio
}

// status tells what is known of pools.
func (a *admin) status(pool string) ([]poolStatus, error) {
	pools, err := a.named(pool)
	if err != nil {
		return nil, err
	}
	return eachPool(pools, a.statusOf, func(p *csi.Pool) poolStatus { return poolStatus{Pool: p.Name, Problem: hangs} }), nil
}

func (a *admin) statusOf(p *csi.Pool) poolStatus {
	layers, err := p.Now()
	if err != nil {
		return poolStatus{Pool: p.Name, Problem: err.Error(), Retired: p.Retired}
	}
	st := presentStatus(layers.DeviceSet.Status(), a.options(p.Name))
	st.Pool, st.Key, st.GrowTo = p.Name, p.Key(), p.MostBytes
	if st.Retired = p.Retired; !p.Retired {
		st.Room = roomOf(layers)
	}
	return st
}

func roomOf(layers *graphdriver.Driver) int64 {
	room, err := layers.Room()
	if err != nil {
		return 0 // the status says why
	}
	return room
}

// options returns what a pool was told.
func (a *admin) options(pool string) deviceset.Config {
	p, _ := a.configured(pool) // the defaults, if nobody knows
	c, _, _ := deviceset.ParseOptions(p.options)
	return c
}

func presentStatus(st *deviceset.Status, c deviceset.Config) poolStatus {
	return poolStatus{
		UUID: st.PoolUUID, Mode: st.Mode, NeedsCheck: st.NeedsCheck, ReadOnly: st.ReadOnly,
		Data:             fillOf(st.Data, c.MinFreeSpace, "min_free_space"),
		Metadata:         fillOf(st.Metadata, max(c.MinFreeSpace, c.MinFreeMetadata), "min_free_metadata"),
		MetadataHeldBack: st.MetadataHeldBack,
		Promised: &promised{
			Bytes: st.ProvisionedBytes, Ratio: c.OverProvision,
			Limit: uint64(float64(st.Data.Total) * c.OverProvision),
		},
		DataOn:     placeOf(st.DataFile, st.DataLoopback),
		MetadataOn: placeOf(st.MetadataFile, st.MetadataLoopback),
		Devices:    st.Devices, PendingDeletions: st.DeferredDeletedDeviceCount, OpenOperations: st.OpenOperations,
		Snapshots: st.Snapshots, Orphans: st.Orphans, Ghosts: st.Ghosts, Quarantined: st.Quarantined, Warnings: st.Warnings,
	}
}

func fillOf(u deviceset.DiskUsage, percent int, option string) *fill {
	return &fill{
		Used: u.Used, Total: u.Total, Available: u.Available,
		KeptFree: u.Total * uint64(percent) / 100, Percent: percent, Option: option,
	}
}

// placeOf names a file rather than the loop device that it is attached to.
func placeOf(device, file string) string {
	if file != "" {
		return file
	}
	return device
}
