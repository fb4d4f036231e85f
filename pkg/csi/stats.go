package csi

import (
	"context"
	"fmt"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// NodeGetVolumeStats tells how full a volume is: its file system, or how much of a block
// volume has been written.
func (d *Driver) NodeGetVolumeStats(ctx context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := checkID("volume_path", r.GetVolumePath()); err != nil {
		return nil, err
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	at, err := d.isAt(v, r.GetVolumePath())
	if err != nil {
		return nil, err
	}
	if at.Node {
		return v.blockStats()
	}
	u, err := d.usage(ctx, v.Name, r.GetVolumePath())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: u.Total, Used: u.Used, Available: u.Available},
		{Unit: csi.VolumeUsage_INODES, Total: u.Inodes, Used: u.InodesUsed, Available: u.InodesFree},
	}}, nil
}

func (v volume) blockStats() (*csi.NodeGetVolumeStatsResponse, error) {
	st, err := v.layers.GetDeviceStatus(v.Name)
	if err != nil {
		return nil, err
	}
	used := min(dm.Sectors(st.MappedSectors).Bytes(), v.Size)
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: v.Size, Used: used, Available: v.Size - used},
	}}, nil
}

// usage asks a file system, which may never answer: then the caller does not wait, and
// nobody else asks it before it does.
func (d *Driver) usage(ctx context.Context, name, path string) (filesystem.Usage, error) {
	type answer struct {
		filesystem.Usage
		err error
	}
	unlock, ok := d.asking.Try(name)
	if !ok {
		return filesystem.Usage{}, fmt.Errorf("%w: the file system of %s does not answer", errPending, name)
	}
	answered := make(chan answer, 1)
	go func() {
		defer unlock()
		u, err := d.Host.Usage(path)
		answered <- answer{u, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, usagePatience)
	defer cancel()
	select {
	case a := <-answered:
		return a.Usage, a.err
	case <-ctx.Done():
		return filesystem.Usage{}, fmt.Errorf("the file system of %s does not answer: %w", name, ctx.Err())
	}
}

const usagePatience = 2 * time.Second
