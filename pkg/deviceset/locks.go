package deviceset

import "sync"

// locks are one lock for each name, which exists as long as somebody wants it.
type locks struct {
	mu    sync.Mutex
	names map[string]*namedLock
}

type namedLock struct {
	sync.RWMutex
	wanted int
}

// lock takes a name for its caller alone and returns how to let go.
func (l *locks) lock(name string) (unlock func()) {
	n := l.want(name)
	n.Lock()
	return func() { n.Unlock(); l.release(name, n) }
}

// try is lock, if nobody has the name.
func (l *locks) try(name string) (unlock func(), ok bool) {
	n := l.want(name)
	if !n.TryLock() {
		l.release(name, n)
		return nil, false
	}
	return func() { n.Unlock(); l.release(name, n) }, true
}

// share takes a name together with others who share it.
func (l *locks) share(name string) (unlock func()) {
	n := l.want(name)
	n.RLock()
	return func() { n.RUnlock(); l.release(name, n) }
}

func (l *locks) want(name string) *namedLock {
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

func (l *locks) release(name string, n *namedLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.wanted--; n.wanted == 0 {
		delete(l.names, name)
	}
}
