package csi

import (
	"context"
	"errors"
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// ControllerExpandVolume makes a volume larger, while it is in use or not, and its pool
// too where that may grow. The file system follows with NodeExpandVolume.
func (d *Driver) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if err := checkID("volume_id", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if r.GetCapacityRange() == nil {
		return nil, fmt.Errorf("%w: capacity_range is missing", errInvalid)
	}
	size, err := parseRange(r.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	v, err := d.find(plugin.Volume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := v.checkUse(r.GetVolumeCapability()); err != nil {
		return nil, err
	}
	have, err := v.expand(size)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: have, NodeExpansionRequired: !v.isBlock()}, nil
}

// checkUse refuses to expand v for a use that it was not made for, if one is named. That
// is the request's fault: FAILED_PRECONDITION would mean that v must not be in use.
func (v volume) checkUse(c *csi.VolumeCapability) error {
	if c == nil {
		return nil
	}
	a, err := parseCapability(c)
	if err == nil {
		err = v.allows(a)
	}
	if err != nil {
		return fmt.Errorf("%w: volume_capability: %w", errInvalid, err)
	}
	return nil
}

// expand makes the device as large as size asks for.
func (v volume) expand(size sizeRange) (int64, error) {
	block := v.layers.BlockSize()
	want := max((size.least+block-1)/block*block, v.Size)
	if size.most != 0 && want > size.most {
		return 0, fmt.Errorf("%w: limit_bytes %d: it has %d, in blocks of %d bytes", errOutOfRange, size.most, v.Size, block)
	}
	err := v.layers.GrowDevice(v.Name, want)
	if errors.Is(err, deviceset.ErrPoolFull) {
		err = v.expandWithPool(want, err)
	}
	return want, err
}

// expandWithPool makes the pool larger first, if it may be.
func (v volume) expandWithPool(want int64, full error) error {
	data := int64(v.layers.DeviceSet.Status().Data.Total)
	most, need := max(data, v.pool.MostBytes), v.layers.DataFor(want-v.Size)
	switch {
	case v.layers.DataForOne(want) > most:
		return fmt.Errorf("%w: pool %s has at most %d bytes of data: %w", errNeverFits, v.pool.Name, most, full)
	case need > most || need <= data: // others have what it needs, or the pool is full of data
		return fmt.Errorf("%w: %w", errNoRoomNow, full)
	}
	if err := v.layers.ResizePool(need); err != nil {
		return fmt.Errorf("%w: %w: %w", errNoRoomNow, full, err)
	}
	err := v.layers.GrowDevice(v.Name, want)
	if errors.Is(err, deviceset.ErrPoolFull) {
		err = fmt.Errorf("%w: %w", errNoRoomNow, err)
	}
	return err
}
