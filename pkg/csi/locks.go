package csi

import "sync"

// A lockSet has a lock for each name that somebody holds, and nobody waits.
type lockSet struct {
	mu   sync.Mutex
	held map[string]bool
}

// try takes names for the caller alone, all or none of them.
func (l *lockSet) try(names ...string) (unlock func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if l.held[name] {
			return nil, false
		}
	}
	if l.held == nil {
		l.held = map[string]bool{}
	}
	for _, name := range names {
		l.held[name] = true
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, name := range names {
			delete(l.held, name)
		}
	}, true
}
