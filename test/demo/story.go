package main

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

const (
	volumeSize   = 400 * mib
	restoredSize = 600 * mib
	expandedSize = 800 * mib
)

// A story is told on a stage: of a database, of two copies of it, and of a disk that
// becomes full.
type story struct {
	*stage
	*driver
	belowVolumes int    // how much there is to undo once the volumes are gone
	label        uint64 // what the pool has for itself, in bytes

	first, second, third *database
	payers               *postgres.Payers
	snapshot             *csi.Snapshot
	snapshotAt, cloneAt  moment
}

func newStory(s *stage) *story { return &story{stage: s} }

func (s *story) steps() []step {
	return []step{
		{"start csi-dmthin, with a pool of 2 GiB on two files", s.start},
		{"create a volume of 400 MiB", s.createFirst},
		{"stage and publish it", s.mountFirst},
		{"make a database on it, and start PostgreSQL", s.makeDatabase},
		{"found a bank, and let 4 clients pay", s.openBank},
		{"take a snapshot, while they do", s.takeSnapshot},
		{"restore it to a volume of 600 MiB", s.restore},
		{"start a second PostgreSQL on that", s.startSecond},
		{"check all its pages and indexes: pg_amcheck", s.check},
		{"clone the first volume, while they still pay", s.clone},
		{"start a third PostgreSQL on the clone", s.startThird},
		{"close the bank, and fill the first volume by SQL", s.fillDisk},
		{"expand it to 800 MiB, mounted and in use", s.expandFirst},
		{"write again, and pay again", s.payAgain},
		{"stop, unpublish, unstage and delete all", s.deleteAll},
		{"stop csi-dmthin", s.stop},
	}
}

func (s *story) start() (string, error) {
	var err error
	if s.driver, err = s.serve(); err != nil {
		return "", err
	}
	s.belowVolumes = len(s.undo)
	info, err := call(s.identity.GetPluginInfo, &csi.GetPluginInfoRequest{})
	if err != nil {
		return "", err
	}
	s.label, _, err = s.poolUse()
	return fmt.Sprintf("%s, version %s", info.Name, info.VendorVersion), err
}

// deleteAll ends what there is, the last thing first, and looks whether the driver
// and the pool have forgotten it.
func (s *story) deleteAll() (string, error) {
	if err := s.downTo(s.belowVolumes); err != nil {
		return "", err
	}
	if err := s.isEmpty(); err != nil {
		return "", err
	}
	return "no volume, no snapshot; the pool is as empty as it was", s.waitForUse(s.label)
}

// stop ends the driver, which gives back what it has of the machine.
func (s *story) stop() (string, error) {
	if err := s.downTo(0); err != nil {
		return "", err
	}
	return "no mount, no device, no loop is left", s.nothingLeft()
}
