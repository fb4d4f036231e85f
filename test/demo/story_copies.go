package main

import (
	"errors"
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

// The second chapter: copies of a volume that is being written. Each is what a
// power cut would have left, so PostgreSQL recovers on it, and has to come to what it
// had acknowledged.

func (s *story) takeSnapshot() (string, error) {
	var err error
	s.snapshotAt, err = momentOf(s.first.Server, func() (err error) {
		s.snapshot, err = s.createSnapshot("monday", s.first.volume)
		return err
	})
	if err == nil {
		s.later(func() error { return s.deleteSnapshot(s.snapshot) })
	}
	return s.snapshotAt.String(), err
}

func (s *story) restore() (string, error) {
	var err error
	if s.second, err = s.create("second", restoredSize, fromSnapshot(s.snapshot)); err != nil {
		return "", err
	}
	if err := s.mount(s.second); err != nil {
		return "", err
	}
	return s.isLarger()
}

// isLarger fails unless the restored file system has most of the room that its
// volume has more than the first.
func (s *story) isLarger() (string, error) {
	before, _, err := s.first.room()
	if err != nil {
		return "", err
	}
	size, _, err := s.second.room()
	if err == nil && size < before+(restoredSize-volumeSize)*9/10 {
		err = fmt.Errorf("the file system has room for %d bytes, and the first for %d", size, before)
	}
	return fmt.Sprintf("its ext4 has room for %d MiB", size/mib), err
}

func (s *story) startSecond() (string, error) { return s.recover(s.second, s.snapshotAt) }

func (s *story) check() (string, error) {
	return "", s.second.Check()
}

func (s *story) clone() (string, error) {
	var err error
	s.cloneAt, err = momentOf(s.first.Server, func() (err error) {
		s.third, err = s.create("third", volumeSize, fromVolume(s.first.volume))
		return err
	})
	return s.cloneAt.String(), err
}

func (s *story) startThird() (string, error) {
	if err := s.mount(s.third); err != nil {
		return "", err
	}
	return s.recover(s.third, s.cloneAt)
}

// recover starts PostgreSQL on a copy, and judges what it came to.
func (s *story) recover(d *database, taken moment) (string, error) {
	if err := postgres.ForgetOwner(d.data()); err != nil {
		return "", err
	}
	if err := s.run(d); err != nil {
		return "", err
	}
	if !d.Recovered() {
		return "", errors.New("there was nothing to recover: this is no copy of a database in use")
	}
	books, err := d.Audit()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("it recovered to %d payments; the books agree: %d", books.Payments, books.Accounts), books.Between(taken.before, taken.after)
}
