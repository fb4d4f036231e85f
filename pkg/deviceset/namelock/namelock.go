// Package namelock has a lock for each name that somebody wants, and none for others.
package namelock

import "sync"

// Locks are one lock for each name, which exists as long as somebody wants it. The zero
// value has none.
type Locks struct {
	mu    sync.Mutex
	names map[string]*namedLock
}

type namedLock struct {
	sync.RWMutex
	wanted int
}

// Lock takes a name for its caller alone and returns how to let go.
func (l *Locks) Lock(name string) (unlock func()) {
	n := l.want(name)
	n.Lock()
	return func() { n.Unlock(); l.release(name, n) }
}

// Try is Lock, if nobody has the name.
func (l *Locks) Try(name string) (unlock func(), ok bool) {
	n := l.want(name)
	if !n.TryLock() {
		l.release(name, n)
		return nil, false
	}
	return func() { n.Unlock(); l.release(name, n) }, true
}

// Share takes a name together with others who share it.
func (l *Locks) Share(name string) (unlock func()) {
	n := l.want(name)
	n.RLock()
	return func() { n.RUnlock(); l.release(name, n) }
}

func (l *Locks) want(name string) *namedLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = map[string]*namedLock{}
	}
	n := l.names[name]
	if n == nil {
		n = &namedLock{}
		l.names[name] = n
	}
	n.wanted++
	return n
}

func (l *Locks) release(name string, n *namedLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.wanted--; n.wanted == 0 {
		delete(l.names, name)
	}
}
