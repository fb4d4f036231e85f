package main

import (
	"errors"
	"fmt"

	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

// The third chapter: a disk that is full, and becomes larger under the database.

// A ballast row fills a page. Nothing of it goes to the write-ahead log, so the
// volume is filled by the table alone.
const (
	makeBallast = `create unlogged table ballast (line text);
		alter table ballast alter line set storage plain`
	writeBallast = `insert into ballast select repeat('x', 8000) from generate_series(1, %d)`
	ballastRow   = 8192
)

func (s *story) fillDisk() (string, error) {
	if err := s.payers.Stop(); err != nil {
		return "", err
	}
	// Who reads a row first notes on its page that it is committed, which goes to the
	// write-ahead log, since pages have checksums; without room for that the server ends.
	// So all is read, and what is dirty finds its place, before the ballast looks for more.
	if _, err := s.first.Audit(); err != nil {
		return "", err
	}
	if _, err := s.first.Query(makeBallast, "checkpoint"); err != nil {
		return "", err
	}
	_, err := s.first.Query(fmt.Sprintf(writeBallast, volumeSize/ballastRow))
	if err == nil {
		err = errors.New("it took as much as the volume is large")
	}
	if !errors.Is(err, postgres.ErrDiskFull) {
		return "", err
	}
	books, err := s.first.Audit()
	return fmt.Sprintf("PostgreSQL answers with %v; the books agree after %d payments", postgres.ErrDiskFull, books.Payments), err
}

func (s *story) expandFirst() (string, error) {
	before, _, err := s.first.room()
	if err != nil {
		return "", err
	}
	if err := s.expand(s.first.volume, expandedSize); err != nil {
		return "", err
	}
	after, free, err := s.first.room()
	if err == nil && after < before+(expandedSize-volumeSize)*9/10 {
		err = fmt.Errorf("the file system had room for %d bytes, and has it for %d", before, after)
	}
	return fmt.Sprintf("its ext4 has room for %d MiB, and %d of them free", after/mib, free/mib), err
}

func (s *story) payAgain() (string, error) {
	const more = 64 * mib
	if _, err := s.first.Query(fmt.Sprintf(writeBallast, more/ballastRow)); err != nil {
		return "", err
	}
	if err := s.first.Pay(100); err != nil {
		return "", err
	}
	books, err := s.first.Audit()
	return fmt.Sprintf("64 MiB, and %d payments; the books agree: %d", books.Payments, books.Accounts), err
}
