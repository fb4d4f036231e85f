package gateway

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
)

// How many may be waiting to be admitted. All of a cluster's agents come at once when a
// controller starts, most of them from addresses of their own.
const (
	mostStrangers    = 512
	mostOfOneAddress = 16
)

var errCrowd = errors.New("too many have connected and were not admitted yet")

// A door is where those are who have connected and were not admitted yet. Nobody is kept
// out by others who do nothing: when there are too many the oldest goes, of those from
// one address first. Whose token is being looked at stays.
type door struct {
	mu      sync.Mutex
	waiting []*stranger         // the oldest first
	turns   map[string]*reviews // by address
}

type stranger struct {
	door     *door
	from     string
	turnAway func(why error)
}

// reviews are those of the tokens that came from one address: as many at a time as may
// wait.
type reviews struct {
	slots chan struct{}
	users int
}

// enter lets a connection wait.
func (d *door) enter(from net.Addr, turnAway func(why error)) *stranger {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	s := &stranger{d, host, turnAway}
	d.mu.Lock()
	d.waiting = append(d.waiting, s)
	goes := d.oneTooMany(host)
	if goes != nil {
		d.removeLocked(goes)
	}
	d.mu.Unlock()
	if goes != nil {
		goes.turnAway(errCrowd)
	}
	return s
}

// oneTooMany returns who has to go, if somebody has, when one has come from host: the oldest
// of those from there, or from where most are.
func (d *door) oneTooMany(host string) *stranger {
	counts := map[string]int{}
	for _, s := range d.waiting {
		counts[s.from]++
	}
	crowd := host
	if counts[host] <= mostOfOneAddress {
		if len(d.waiting) <= mostStrangers {
			return nil
		}
		crowd = d.waiting[0].from
		for from, n := range counts {
			if n > counts[crowd] {
				crowd = from
			}
		}
	}
	return d.waiting[slices.IndexFunc(d.waiting, func(s *stranger) bool { return s.from == crowd })]
}

func (d *door) removeLocked(s *stranger) {
	d.waiting = slices.DeleteFunc(d.waiting, func(other *stranger) bool { return other == s })
}

// leave says that a connection does not wait any more.
func (s *stranger) leave() {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	s.door.removeLocked(s)
}

// turn waits until the token of this one can be looked at, and lets nobody turn it away
// from then on. Many behind one address do not get in the way of others.
func (s *stranger) turn(ctx context.Context) (done func(), err error) {
	r := s.door.reviewsOf(s.from)
	select {
	case r.slots <- struct{}{}:
		s.leave()
		return func() { <-r.slots; s.door.release(s.from) }, nil
	case <-ctx.Done():
		s.door.release(s.from)
		return nil, ctx.Err()
	}
}

func (d *door) reviewsOf(from string) *reviews {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turns == nil {
		d.turns = map[string]*reviews{}
	}
	r := d.turns[from]
	if r == nil {
		r = &reviews{slots: make(chan struct{}, mostOfOneAddress)}
		d.turns[from] = r
	}
	r.users++
	return r
}

func (d *door) release(from string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.turns[from]; r != nil {
		if r.users--; r.users == 0 {
			delete(d.turns, from)
		}
	}
}
