package deviceset

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// GrowDevice makes a device size bytes large, rounded up to whole blocks, while it
// is in use or not. The size that it has is no error; less is ErrTooSmall. A file
// system on it stays as large as it was: see GrowFilesystem.
//
// The new size is durable before the device has it, so a device never has more than
// the next start would give it.
func (s *DeviceSet) GrowDevice(hash string, size int64) error {
	return s.during("grow device", hash, func() error { return s.growDevice(s.named(hash), size) })
}

func (s *DeviceSet) growDevice(name string, size int64) error {
	return s.alone(name, func(d device) error { return s.growTo(d, size) })
}

func (s *DeviceSet) growTo(d device, size int64) error {
	size, err := s.wholeBlocks(size)
	if err != nil {
		return err
	}
	switch {
	case size < d.Size:
		return fmt.Errorf("%w: %d bytes, it has %d", ErrTooSmall, size, d.Size)
	case size > d.Size:
		if err := s.writeSize(d, size); err != nil {
			return err
		}
	}
	return s.fitActive(d.ID, size)
}

func (s *DeviceSet) writeSize(d device, size int64) error {
	if err := s.mutable(); err != nil {
		return err
	}
	status, err := s.figures()
	if err != nil {
		return err
	}
	if status.Mode == dm.PoolOutOfDataSpace {
		return fmt.Errorf("%w: no device is suspended while the pool is out of data space", ErrPoolFull)
	}
	return s.commitFact(s.ratioOf(status, s.room(status.Data)), record{Do: doGrow, Name: d.Name, Size: size})
}

// commitFact makes a record durable in both places: no commit of the pool follows
// that would do it for the label, and it is about to be acknowledged.
func (s *DeviceSet) commitFact(limit limit, r record) error {
	if err := s.store.commitWithin(limit, r); err != nil {
		return err
	}
	return s.syncLabel()
}

// syncLabel makes durable what the label was written: one flush of the data device.
func (s *DeviceSet) syncLabel() error {
	if err := s.pool.changed(s.label.Sync); err != nil {
		return fmt.Errorf("%w: flush label: %w", ErrUnavailable, err)
	}
	return nil
}

// fitActive gives a device its size, if it is active.
func (s *DeviceSet) fitActive(id dm.DeviceID, size int64) error {
	return ignoring(s.pool.fit(s.pool.thin(id), s.pool.thinTable(id, size)), unix.ENXIO)
}

// GrowFilesystem makes the file system of a mounted device as large as the device.
// One that is not mounted grows at its next MountDevice.
func (s *DeviceSet) GrowFilesystem(ctx context.Context, hash string) error {
	return s.during("grow file system of", hash, func() error {
		return s.alone(s.named(hash), func(d device) error { return s.growFilesystem(ctx, d) })
	})
}

func (s *DeviceSet) growFilesystem(ctx context.Context, d device) error {
	info, err := s.pool.thin(d.ID).Info()
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return err
	}
	points, err := s.machine.MountPoints(info.Dev)
	if err != nil || len(points) == 0 {
		return err
	}
	found, err := s.machine.Probe(info) // what is on a volume that its users formatted, nobody wrote down
	if err != nil {
		return err
	}
	return s.machine.GrowFS(ctx, info, points[0], found.Type)
}

// SetLabels replaces the labels of a device: what the caller wants kept with it.
func (s *DeviceSet) SetLabels(hash string, labels map[string]string) error {
	return s.during("label device", hash, func() error { return s.setLabels(s.named(hash), labels) })
}

func (s *DeviceSet) setLabels(name string, labels map[string]string) error {
	unlock := s.locks.Lock(name)
	defer unlock()
	if err := checkLabels(labels); err != nil {
		return err
	}
	if err := s.up(); err != nil {
		return err
	}
	if _, err := s.lookup(name); err != nil {
		return err
	}
	if err := s.mutable(); err != nil {
		return err
	}
	return s.commitFact(nil, record{Do: doLabel, Name: name, Labels: labels})
}
