package graphdriver

import (
	"fmt"
	"strconv"
)

// Status tells what is known of the pool, in pairs of a name and a value for people.
func (d *Driver) Status() [][2]string {
	s := d.DeviceSet.Status()
	pairs := [][2]string{
		{"Pool Name", s.PoolName},
		{"Pool Blocksize", humanSize(s.SectorSize)},
		{"Base Device Size", humanSize(s.BaseDeviceSize)},
		{"Backing Filesystem", s.BaseDeviceFS},
		{"Data file", s.DataFile},
		{"Metadata file", s.MetadataFile},
		{"Data Space Used", humanSize(s.Data.Used)},
		{"Data Space Total", humanSize(s.Data.Total)},
		{"Data Space Available", humanSize(s.Data.Available)},
		{"Metadata Space Used", humanSize(s.Metadata.Used)},
		{"Metadata Space Total", humanSize(s.Metadata.Total)},
		{"Metadata Space Available", humanSize(s.Metadata.Available)},
		{"Thin Pool Minimum Free Space", humanSize(s.MinFreeSpace)},
		{"Udev Sync Supported", strconv.FormatBool(s.UdevSyncSupported)},
		{"Deferred Removal Enabled", strconv.FormatBool(s.DeferredRemoveEnabled)},
		{"Deferred Deletion Enabled", strconv.FormatBool(s.DeferredDeleteEnabled)},
		{"Deferred Deleted Device Count", strconv.FormatUint(uint64(s.DeferredDeletedDeviceCount), 10)},
	}
	if s.DataLoopback != "" {
		pairs = append(pairs, [2]string{"Data loop file", s.DataLoopback})
	}
	if s.MetadataLoopback != "" {
		pairs = append(pairs, [2]string{"Metadata loop file", s.MetadataLoopback})
	}
	return pairs
}

// humanSize prints bytes with four digits and a decimal unit.
func humanSize(bytes uint64) string {
	size, units := float64(bytes), []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for size >= 1000 && len(units) > 1 {
		size, units = size/1000, units[1:]
	}
	return fmt.Sprintf("%.4g%s", size, units[0])
}
