package main

import (
	"fmt"
	"net/http"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
)

// A poolSize is how large a pool is to be.
type poolSize struct {
	Bytes int64 `json:"bytes"`
}

// A growth is what became of a pool.
type growth struct {
	Pool   string     `json:"pool"`
	Before uint64     `json:"before"` // bytes of data
	Status poolStatus `json:"status"`
}

func (a *admin) grow(pool string, want poolSize) (growth, error) {
	p, err := a.one(pool)
	if err != nil {
		return growth{}, err
	}
	if want.Bytes <= 0 {
		return growth{}, &requestError{http.StatusBadRequest, fmt.Errorf("size %d: want more than nothing", want.Bytes)}
	}
	layers, err := p.Now()
	if err != nil {
		return growth{}, fmt.Errorf("pool %s is not open: %w", pool, err)
	}
	before := layers.DeviceSet.Status().Data.Total
	if err := layers.ResizePool(want.Bytes); err != nil {
		return growth{}, err
	}
	return growth{pool, before, a.statusOf(p)}, nil
}

// one returns the pool of a name.
func (a *admin) one(pool string) (*csi.Pool, error) {
	found, err := a.named(pool)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}
