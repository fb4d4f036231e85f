package gateway

import (
	"sync"
	"time"
)

// searches remember which pools have no volume of a name, from one attempt to make it to the
// next: in a large cluster some node is always away, and all are never here at once. As
// long as no attempt has begun to make it, nobody else does.
type searches struct {
	mu     sync.Mutex
	byName map[string]*search
}

type search struct {
	denied map[string]bool // by keys of pools
	last   time.Time
}

// searchAge is how long a search is remembered that nobody goes on with.
const searchAge = 5 * time.Minute

// begin returns the keys of the pools that have no volume of a name. Who has the name's
// lock adds to them.
func (s *searches) begin(name string) (denied map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for other, search := range s.byName {
		if now.Sub(search.last) > searchAge {
			delete(s.byName, other)
		}
	}
	if s.byName == nil {
		s.byName = map[string]*search{}
	}
	if s.byName[name] == nil {
		s.byName[name] = &search{denied: map[string]bool{}}
	}
	s.byName[name].last = now
	return s.byName[name].denied
}

// end forgets a name: it is about to be made.
func (s *searches) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}
