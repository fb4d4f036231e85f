package main

import (
	"fmt"
	"time"

	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

// A moment is when a copy was taken, told by what had been paid before and after.
type moment struct {
	before, after int64
	took          time.Duration
}

func (m moment) String() string {
	return fmt.Sprintf("the call itself: %v; %d payments were acknowledged before, %d after", round(m.took), m.before, m.after)
}

// momentOf has a copy taken while a bank is open.
func momentOf(bank *postgres.Server, take func() error) (m moment, err error) {
	if m.before, err = bank.Payments(); err != nil {
		return m, err
	}
	begin := time.Now()
	err = take()
	if m.took = time.Since(begin); err != nil {
		return m, err
	}
	m.after, err = bank.Payments()
	return m, err
}
