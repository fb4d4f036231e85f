package main

import (
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

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
	if err := postgres.Init(s.first.data()); err != nil {
		return "", err
	}
	return "", s.run(s.first)
}

const branches = 4

// pace is how many payments there are in a second: few enough for a slow machine,
// and on a fast one the volume is not full too early.
const pace = 100

func (s *story) openBank() (string, error) {
	if err := s.first.FoundBank(branches); err != nil {
		return "", err
	}
	var err error
	if s.payers, err = s.first.OpenBank(pace); err != nil {
		return "", err
	}
	s.runs(s.payers.Process)
	const some = 200
	var n int64
	err = s.payers.Until("paid", func() (bool, error) {
		n, err = s.first.Payments()
		return n >= some, err
	})
	return fmt.Sprintf("%d accounts, %d payments so far", branches*postgres.AccountsOfBranch, n), err
}
