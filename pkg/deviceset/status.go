package deviceset

import (
	"errors"
	"fmt"
	"slices"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// DiskUsage is how much of something is used, in bytes.
type DiskUsage struct {
	Used  uint64
	Total uint64
	// Available is what is left, and no more than the file system of a file below
	// the pool can still give.
	Available uint64
}

// Status is what is known of a pool. The first part is that of the devicemapper
// graph driver; where the pool cannot be asked, its figures are zero and Mode says
// so.
type Status struct {
	PoolName         string
	DataFile         string // block device; empty for a pool that somebody else made
	MetadataFile     string
	DataLoopback     string // the file behind it
	MetadataLoopback string
	BaseDeviceFS     string
	BaseDeviceSize   uint64 // bytes
	SectorSize       uint64 // the pool's block size, in bytes, despite its name
	Data             DiskUsage
	Metadata         DiskUsage
	MinFreeSpace     uint64 // bytes of data that admission keeps free

	UdevSyncSupported          bool // always false: nobody waits for udev
	DeferredRemoveEnabled      bool
	DeferredDeleteEnabled      bool
	DeferredDeletedDeviceCount uint // devices whose deletion is pending

	PoolUUID             string
	Mode                 string // rw, out_of_data_space, ro, Fail, Error, or "unavailable"
	NeedsCheck           bool
	ErrorIfNoSpace       bool
	TransactionID        uint64  // the generation: how many processes have changed the pool
	HeldMetadataSnapshot bool    // somebody holds the metadata for reading
	MetadataHeldBack     uint64  // bytes that the pool is given when it runs short
	Snapshots            uint64  // taken so far; they end at 2^24
	Devices              int     // named ones
	ProvisionedBytes     uint64  // that over-provisioning counts
	OverProvisioning     float64 // of them, by the size of the pool's data
	OpenOperations       int     // creates of which nobody knows yet whether they happened

	Orphans     []dm.DeviceID // thin devices that nobody here has made
	Ghosts      []string      // devices that the pool has lost
	Quarantined []dm.DeviceID // thin devices that may not be used
	ReadOnly    string        // why nothing may be changed; empty if it may
	Warnings    []string      // from the options
}

// Status tells what is known of the pool. It never fails, and costs the pool
// nothing: no flush, no commit.
func (s *DeviceSet) Status() *Status {
	st := &Status{
		UdevSyncSupported: false, DeferredRemoveEnabled: s.config.DeferredRemoval, DeferredDeleteEnabled: s.config.DeferredDeletion,
		BaseDeviceFS: s.config.FS, BaseDeviceSize: uint64(s.config.BaseSize),
		Mode: "unavailable", Warnings: slices.Clone(s.warnings),
	}
	s.describeCatalog(st)
	s.describeFindings(st)
	s.describePool(st)
	return st
}

func (s *DeviceSet) describeCatalog(st *Status) {
	s.store.view(func(c *catalog) {
		st.PoolUUID, st.SectorSize = c.Pool.UUID, uint64(c.Pool.BlockSize.Bytes())
		st.Devices, st.DeferredDeletedDeviceCount, st.OpenOperations = len(c.names), uint(c.deletions()), len(c.making)
		st.ProvisionedBytes = uint64(c.promised)
		if base := c.devices[baseName(s.config.FS)]; base != nil {
			st.BaseDeviceSize = uint64(base.Size)
		}
		for id := range c.quarantine {
			st.Quarantined = append(st.Quarantined, id)
		}
		for name, err := range s.bad() {
			if d := c.devices[name]; d != nil && errors.Is(err, ErrQuarantined) {
				st.Quarantined = append(st.Quarantined, d.ID)
			}
		}
	})
	slices.Sort(st.Quarantined)
}

// bad returns the devices that may not be used.
func (s *DeviceSet) bad() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found.bad // replaced, never changed
}

func (s *DeviceSet) describeFindings(st *Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Orphans, st.Ghosts = slices.Clone(s.found.orphans), slices.Clone(s.found.ghosts)
	slices.Sort(st.Ghosts)
	st.Snapshots = uint64(s.time.value)
	if err := errors.Join(s.readOnly, s.down); err != nil {
		st.ReadOnly = err.Error()
	}
	if s.sparse != nil {
		st.Warnings = append(st.Warnings, "the data file is served as it is, with holes: "+s.sparse.Error())
	}
	if s.found.err != nil {
		st.Warnings = append(st.Warnings, s.found.err.Error())
	}
}

func (s *DeviceSet) describePool(st *Status) {
	if s.up() != nil {
		return
	}
	p := s.pool
	st.PoolName = p.String()
	if !p.existing {
		s.describeDisks(st)
	}
	status, err := p.status(0)
	if err != nil {
		return
	}
	st.Mode, st.NeedsCheck, st.ErrorIfNoSpace = status.Mode.String(), status.NeedsCheck, status.ErrorIfNoSpace
	st.TransactionID, st.HeldMetadataSnapshot = status.TransactionID, status.HeldRoot != 0
	block := uint64(p.blockSize.Bytes())
	st.Data = usageIn(status.Data, block)
	st.Metadata = usageIn(status.Metadata, uint64(dm.MetadataBlockSize.Bytes()))
	if !p.existing {
		st.MetadataHeldBack = s.heldBack(dm.SectorsIn(int64(st.Metadata.Total)))
	}
	st.MinFreeSpace = status.Data.Total * uint64(s.config.MinFreeSpace) / 100 * block
	if st.Data.Total > 0 {
		st.OverProvisioning = float64(st.ProvisionedBytes) / float64(st.Data.Total)
	}
	if st.DataLoopback != "" {
		if free, err := s.fileRoom(status.Data); err == nil {
			st.Data.Available = min(st.Data.Available, uint64(max(free, 0)))
		}
	}
}

func (s *DeviceSet) describeDisks(st *Status) {
	p := s.pool
	st.DataFile, st.MetadataFile = p.data.Path(), p.metadata.Path()
	if s.config.kind() == poolLoop {
		st.DataLoopback, st.MetadataLoopback = s.loopData(), s.loopMetadata()
	}
}

// heldBack returns how many bytes of its metadata device a pool has not been given.
// Metadata that was restored or repaired has more than is on record.
func (s *DeviceSet) heldBack(has dm.Sectors) uint64 {
	size, err := s.pool.metadata.Size()
	if err != nil {
		return 0
	}
	return uint64(max((allOf(size) - max(has, s.given())).Bytes(), 0))
}

func usageIn(u dm.Usage, block uint64) DiskUsage {
	return DiskUsage{Used: u.Used * block, Total: u.Total * block, Available: u.Free() * block}
}

// DevStatus is what is known of a device.
type DevStatus struct {
	DeviceID            int
	Size                uint64 // bytes
	TransactionID       uint64 // of the operation that made it; they rise
	SizeInSectors       uint64
	MappedSectors       uint64 // of which there are blocks, shared ones included
	HighestMappedSector uint64 // 0 where nothing is mapped
}

// GetDeviceStatus tells what is known of a device. It does not activate it: where
// the device is not active, the figures are those of the pool's last commit.
func (s *DeviceSet) GetDeviceStatus(hash string) (st *DevStatus, err error) {
	err = s.during("status of device", hash, func() (err error) {
		st, err = s.deviceStatus(s.named(hash))
		return err
	})
	return st, err
}

func (s *DeviceSet) deviceStatus(name string) (*DevStatus, error) {
	if err := s.up(); err != nil {
		return nil, err
	}
	d, err := s.usable(name)
	if err != nil {
		return nil, err
	}
	mapped, highest, err := s.mapping(d)
	if err != nil {
		return nil, err
	}
	return &DevStatus{
		DeviceID: int(d.ID), Size: uint64(d.Size), TransactionID: d.Op, SizeInSectors: uint64(dm.SectorsIn(d.Size)),
		MappedSectors: uint64(mapped), HighestMappedSector: uint64(highest),
	}, nil
}

// mapping asks the device, or the pool's metadata if it is not active.
func (s *DeviceSet) mapping(d device) (mapped, highest dm.Sectors, err error) {
	status, err := s.pool.thin(d.ID).ThinStatus()
	if err == nil && status.State == dm.ThinOK {
		return status.Mapped, status.Highest, nil
	}
	if err == nil && status.State != dm.ThinClosed {
		return 0, 0, fmt.Errorf("%w: thin device %d: %s", ErrUnavailable, d.ID, status)
	}
	m, err := s.machine.Metadata(s.pool.metaDev)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _ = m.Close() }() // it was only read
	details, err := m.Device(d.ID)
	if err != nil || details.Mapped == 0 {
		return 0, 0, err
	}
	extent, err := m.Extent(d.ID)
	return details.Mapped.Sectors(s.pool.blockSize), extent.Sectors(s.pool.blockSize) - 1, err
}

// DataDevicePath returns the block device with the pool's data; it is empty for a
// pool that somebody else made.
func (s *DeviceSet) DataDevicePath() string { return s.diskPath(func(p *pool) Disk { return p.data }) }

// MetadataDevicePath returns the block device with the pool's metadata.
func (s *DeviceSet) MetadataDevicePath() string {
	return s.diskPath(func(p *pool) Disk { return p.metadata })
}

func (s *DeviceSet) diskPath(which func(*pool) Disk) string {
	if s.pool == nil || which(s.pool) == nil {
		return ""
	}
	return which(s.pool).Path()
}

// PoolUUID identifies the pool, wherever its disks are put.
func (s *DeviceSet) PoolUUID() (uuid string) {
	s.store.view(func(c *catalog) { uuid = c.Pool.UUID })
	return uuid
}

// PoolSecret is known to nobody but who can read the pool's disks or its root. The UUID is
// no secret: the kernel shows it to each process of the machine, in those of the devices.
func (s *DeviceSet) PoolSecret() (secret string) {
	s.store.view(func(c *catalog) { secret = c.Pool.secret() })
	return secret
}
