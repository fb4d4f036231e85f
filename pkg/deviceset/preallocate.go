package deviceset

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// leastFree is the part of a file system, in percent, that files which are allocated
// ahead leave to others: with less than that a kubelet evicts pods.
const leastFree = 15

// openDataFile opens or makes the data file. One that holds a pool's data is served
// even if there is no room for what it lacks.
func (s *DeviceSet) openDataFile(r poolRecord) (Disk, error) {
	size := s.config.LoopDataSize
	switch {
	case !s.config.Preallocate:
		return s.openPoolFile(r, s.loopData(), size, Holes)
	case !r.Made:
		if err := s.admitFiles(size, s.loopMetadataSize()); err != nil {
			return nil, err
		}
		d, err := s.machine.OpenFile(s.loopData(), size, Blocks)
		return d, s.explainAllocation(err)
	}
	d, err := s.openPoolFile(r, s.loopData(), 0, Holes)
	if err != nil {
		return nil, err
	}
	have, err := d.Size()
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	err = s.admitFiles(max(size, have), s.loopMetadataSize())
	if err == nil {
		err = s.explainAllocation(d.Grow(size, Blocks))
	}
	s.noteSparse(err)
	return d, nil
}

// growData makes the data device larger, if it is a file.
func (s *DeviceSet) growData(size int64) error {
	if !s.config.Preallocate {
		return s.pool.data.Grow(size, Holes)
	}
	if err := s.admitFiles(size, metadataSizeFor(size)); err != nil {
		return err
	}
	if err := s.explainAllocation(s.pool.data.Grow(size, Blocks)); err != nil {
		return err
	}
	s.noteSparse(nil)
	return nil
}

func (s *DeviceSet) noteSparse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sparse = err
}

// admitFiles refuses to allocate files of that size where too little would stay free.
func (s *DeviceSet) admitFiles(data, metadata int64) error {
	more, err := s.lacking(s.loopData(), data)
	if err != nil {
		return err
	}
	moreMetadata, err := s.lacking(s.loopMetadata(), metadata)
	if err != nil {
		return err
	}
	space, err := s.machine.Space(s.loopData())
	if err != nil {
		return err
	}
	least := space.Total / 100 * leastFree
	if more == 0 || space.Free-more-moreMetadata >= least {
		return nil
	}
	return fmt.Errorf("%w: %s with %d bytes needs %d more, with its metadata, of the %d that are free, and %d %% of the file system's %d are to stay so: "+
		"take a smaller dm.loopdatasize, make room, or give dm.preallocate=false",
		ErrNoSpace, s.loopData(), data, more+moreMetadata, space.Free, leastFree, space.Total)
}

// lacking returns how many bytes a file of that size has not been given yet.
func (s *DeviceSet) lacking(path string, size int64) (int64, error) {
	has, err := s.machine.Allocated(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return max(size-has, 0), nil
}

// explainAllocation says what helps where a file system did not allocate.
func (s *DeviceSet) explainAllocation(err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: it cannot (%w): put %s on one that can, such as ext4 or xfs, or give dm.preallocate=false", ErrNoSpace, err, s.loopData())
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return fmt.Errorf("%w: %w: take a smaller dm.loopdatasize, make room, or give dm.preallocate=false", ErrNoSpace, err)
	}
	return err
}
