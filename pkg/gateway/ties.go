package gateway

import (
	"sync"
	"time"
)

// ties remember in which pool a volume of a name may have been made: an attempt is under
// way there, or ended without a definite answer. Another attempt elsewhere could make it
// twice, and one of the two for ever.
type ties struct {
	mu     sync.Mutex
	byName map[string]*tie
}

type tie struct {
	key     string // of the pool
	running int    // attempts
	last    time.Time
}

// tieAge is how long a name is remembered that nobody has asked for any more. The
// provisioner repeats each half minute.
const tieAge = time.Hour

// to returns the key of the pool that a name is tied to.
func (t *ties) to(name string) (key string, tied bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tie := t.byName[name]; tie != nil && !tie.isOver(time.Now()) {
		return tie.key, true
	}
	return "", false
}

func (t *tie) isOver(now time.Time) bool { return t.running == 0 && now.Sub(t.last) > tieAge }

// begin ties a name to a pool, unless it is tied to another, whose key is returned.
func (t *ties) begin(name, key string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for other, tie := range t.byName {
		if tie.isOver(now) {
			delete(t.byName, other)
		}
	}
	if t.byName == nil {
		t.byName = map[string]*tie{}
	}
	have := t.byName[name]
	if have == nil {
		have = &tie{key: key}
		t.byName[name] = have
	}
	if have.key == key {
		have.running++
		have.last = now
	}
	return have.key
}

// end ends an attempt, and the tie with it if the answer was definite.
func (t *ties) end(name string, definite bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := t.byName[name]
	have.running--
	have.last = time.Now()
	if have.running == 0 && definite {
		delete(t.byName, name)
	}
}

// drop forgets a name, unless an attempt is under way: its pool has been away for so long
// that volumes go elsewhere, or says that it has none of that name.
func (t *ties) drop(name string) (dropped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := t.byName[name]
	if have != nil && have.running > 0 {
		return false
	}
	delete(t.byName, name)
	return true
}
