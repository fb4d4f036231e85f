package deviceset

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/journal"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/thinmeta"
)

// makePoolAgain goes on where a process that made the pool was killed. Nothing of its
// work is relied on, and nothing but its work is undone: since then, the names of the
// disks or of the pool may have become those of others.
func (s *DeviceSet) makePoolAgain(found *reading) error {
	r := found.catalog.Pool
	s.store.catalog, s.store.head = found.catalog, s.header(found.head)
	s.newPool(r)
	if kind := s.config.kind(); kind != r.Kind {
		return fmt.Errorf("%w: the pool that is being made under this root is of kind %q, the options ask for %q", ErrInvalid, r.Kind, kind)
	}
	if err := s.takeOverDevices(); err != nil {
		return err
	}
	if err := ignoring(s.pool.thin(labelID).Remove(), unix.ENXIO); err != nil {
		return err
	}
	if s.pool.existing {
		if err := s.clearExisting(r); err != nil {
			return err
		}
		return s.build(r)
	}
	if err := s.pool.remove(); err != nil {
		return err
	}
	if err := s.openDisks(r); err != nil {
		return err
	}
	s.pool.metaDev = s.pool.metadata.Dev()
	release, err := s.pool.claim()
	if err != nil {
		return err
	}
	defer release()
	if err := s.checkHalfMade(r); err != nil {
		return err
	}
	return s.build(r)
}

// clearExisting takes the label out of an existing pool, which must have nothing else.
func (s *DeviceSet) clearExisting(r poolRecord) error {
	if r.Data != s.config.ThinPool {
		return fmt.Errorf("%w: the pool that is being made is %s, the options name %s", ErrInvalid, r.Data, s.config.ThinPool)
	}
	t, err := s.existingTable()
	if err != nil {
		return err
	}
	if err := s.noThinsIn(t.Metadata, labelID); err != nil {
		return err
	}
	return ignoring(s.pool.Delete(labelID), unix.ENODATA)
}

// checkHalfMade refuses disks with what a making that was killed has not left there.
// Files under the root are nobody else's.
func (s *DeviceSet) checkHalfMade(r poolRecord) error {
	if r.Kind == poolLoop {
		return nil
	}
	p := s.pool
	if p.data.Path() != r.Data || p.metadata.Path() != r.Metadata {
		return fmt.Errorf("%w: the pool that is being made lies on %s and %s, the options name %s and %s", ErrInvalid, r.Data, r.Metadata, p.data.Path(), p.metadata.Path())
	}
	ours, err := s.beginsLabel(r)
	if err != nil {
		return err
	}
	if !ours {
		if err := s.checkUnmarked(p.data); err != nil {
			return err
		}
	}
	// Metadata that begins with zeros may hold what the kernel wrote before its
	// superblock, so what else is there says nothing.
	err = s.noThinsIn(p.metaDev, labelID)
	switch {
	case errors.Is(err, thinmeta.ErrBlank):
		return nil
	case errors.As(err, new(*thinmeta.CorruptError)):
		return s.checkUnmarked(p.metadata)
	}
	return err
}

// beginsLabel reports whether the data disk has the label of the pool, or the text of
// one whose header was not written any more.
func (s *DeviceSet) beginsLabel(r poolRecord) (bool, error) {
	labelled, err := s.hasLabel(s.pool.data, r)
	if labelled || err != nil {
		return labelled, err
	}
	checkpoint := make([]byte, journal.BlockSize)
	_, err = s.pool.data.ReadAt(checkpoint, journal.BlockSize)
	return bytes.Contains(checkpoint, []byte(r.UUID)), err
}
