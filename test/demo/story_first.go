package main

import "fmt"

// The first chapter: a volume, and a database with customers on it.

func (s *story) createFirst() (_ string, err error) {
	s.first, err = s.create("first", volumeSize, nil)
	return "", err
}

func (s *story) mountFirst() (string, error) {
	if err := s.mount(s.first); err != nil {
		return "", err
	}
	size, _, err := s.first.room()
	return fmt.Sprintf("an ext4 with room for %d MiB", size/mib), err
}

func (s *story) makeDatabase() (string, error) {
	if err := initDB(s.first.data()); err != nil {
		return "", err
	}
	return "", s.run(s.first)
}

func (s *story) openBank() (string, error) {
	if err := s.first.foundBank(); err != nil {
		return "", err
	}
	var err error
	if s.payers, err = s.first.openBank(); err != nil {
		return "", err
	}
	s.runs(s.payers)
	const some = 200
	var n int64
	err = s.payers.until("paid", func() (bool, error) {
		n, err = s.first.payments()
		return n >= some, err
	})
	return fmt.Sprintf("%d accounts, %d payments so far", accounts, n), err
}
