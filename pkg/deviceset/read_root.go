package deviceset

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
)

// A RootContent is what is written under a root, which may be all that is known of a
// pool for which nobody has options any more.
type RootContent struct {
	PoolUUID   string
	PoolSecret string
	// Empty says that there is nothing in the pool but base devices, and that nothing was
	// begun that may be in it.
	Empty bool
	// OnFiles says that the pool lies on files under the root.
	OnFiles bool
	// Options are those by which the pool is found. Nothing grows by them.
	Options []string
	// Damage is why what is under the root cannot be relied on. Then the label may have a
	// copy, and nothing but the UUID is known here, if that.
	Damage error
}

// ReadRoot reads what is written under a root, and neither its pool nor its disks. It is
// ErrNoPool if there is nothing, and ErrInUse while a process has the root: then there is
// the UUID alone.
func ReadRoot(m Files, root string) (found RootContent, err error) {
	slots, err := m.OpenSlots(root)
	if errors.Is(err, fs.ErrNotExist) {
		return found, fmt.Errorf("root %s: %w", root, ErrNoPool)
	}
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, slots[0].Close(), slots[1].Close()) }()
	lock, inUse := m.Lock(root)
	if inUse == nil {
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	size, err := slots[0].Size()
	if err != nil {
		return found, err
	}
	r, err := readSlots(journal.New([2]journal.File{slots[0], slots[1]}, size))
	if err == nil && r.gap {
		err = fmt.Errorf("%w: frame %d is not whole", journal.ErrDamaged, r.last+1)
	}
	switch {
	case inUse != nil:
		if r != nil {
			found.PoolUUID = r.head.Pool
		}
		return found, inUse
	case errors.Is(err, journal.ErrEmpty):
		return RootContent{Empty: true}, nil
	case journal.IsDamage(err):
		found.Damage = err
		if r != nil {
			found.PoolUUID = r.head.Pool
		}
		return found, nil
	case err != nil:
		return found, fmt.Errorf("root %s: %w", root, err)
	}
	c := r.catalog
	return RootContent{
		PoolUUID: c.Pool.UUID, PoolSecret: c.Pool.secret(), OnFiles: c.Pool.Kind == poolLoop, Options: c.Pool.options(),
		Empty: !c.Pool.Made || len(c.names)+len(c.open)+len(c.quarantine) == 0,
	}, nil
}

// options returns those by which the pool was found when it was made. A file grows by
// none of them.
func (r poolRecord) options() []string {
	switch r.Kind {
	case poolDevices:
		return []string{"dm.datadev=" + r.Data, "dm.metadatadev=" + r.Metadata}
	case poolExisting:
		return []string{"dm.thinpooldev=" + r.Data}
	}
	return []string{"dm.loopdatasize=1", fmt.Sprint("dm.loopmetadatasize=", minLoopMetadata)}
}
