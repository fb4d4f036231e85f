package gateway

import (
	"errors"
	"net"
	"slices"
	"sync"
)

// How many may be waiting to be admitted. All of a cluster's agents come at once when a
// controller starts, each from an address of its own.
const (
	mostStrangers    = 512
	mostOfOneAddress = 16
)

var errCrowd = errors.New("too many have connected and were not admitted yet")

// A door is where those are who have connected and were not admitted yet. Nobody is kept
// out by others who do nothing: when there are too many the oldest goes, of those from
// one address first.
type door struct {
	mu      sync.Mutex
	waiting []*stranger // the oldest first
}

type stranger struct {
	from     string
	turnAway func(why error)
}

// enter lets a connection wait, and returns what tells that it does no more.
func (d *door) enter(from net.Addr, turnAway func(why error)) (leave func()) {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	s := &stranger{host, turnAway}
	d.mu.Lock()
	d.waiting = append(d.waiting, s)
	var goes *stranger
	crowd, most := d.largestCrowd(host)
	if most > mostOfOneAddress || len(d.waiting) > mostStrangers {
		i := slices.IndexFunc(d.waiting, func(s *stranger) bool { return s.from == crowd })
		goes = d.waiting[i]
		d.waiting = slices.Delete(d.waiting, i, i+1)
	}
	d.mu.Unlock()
	if goes != nil {
		goes.turnAway(errCrowd)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.waiting = slices.DeleteFunc(d.waiting, func(other *stranger) bool { return other == s })
	}
}

// largestCrowd returns the address from which most are waiting: where there are as many
// from several, host before others.
func (d *door) largestCrowd(host string) (from string, most int) {
	counts := map[string]int{}
	for _, s := range d.waiting {
		counts[s.from]++
	}
	from = host
	for other, n := range counts {
		if n > counts[from] {
			from = other
		}
	}
	return from, counts[from]
}
