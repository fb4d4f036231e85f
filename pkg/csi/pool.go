package csi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A Pool is a thin pool that volumes may lie in. One that cannot be opened is kept
// with the reason: it takes no volumes, and the others serve.
type Pool struct {
	Name string
	// Open opens it. It is called again while it fails.
	Open func() (*graphdriver.Driver, error)
	// MostBytes is how large the pool's data may become for a volume that expands. 0 is
	// as large as it is.
	MostBytes int64
	// Retired says that it is served for the sake of what it has, and takes no new volumes.
	Retired bool

	asked   atomic.Int32 // questions that wait for an answer
	turning sync.Mutex   // one at a time opens or closes it: nobody else waits for that

	mu     sync.RWMutex
	layers *graphdriver.Driver
	secret string // of the pool, since it was open for the first time
	key    string
	err    error
	closed bool
	ending bool // layers are to be let go of, and were not yet
}

// TryOpen opens the pool, unless it is open.
func (p *Pool) TryOpen() error {
	p.turning.Lock()
	defer p.turning.Unlock()
	p.mu.RLock()
	closed, open, ending := p.closed, p.layers, p.ending
	p.mu.RUnlock()
	switch {
	case closed || open != nil && !ending || p.isEmpty():
		return nil
	case ending:
		if err := p.end(open); err != nil {
			return err
		}
	}
	layers, err := p.Open()
	if err == nil {
		if err = layers.Down(); err != nil { // it is opened anew, rather than kept without a pool
			err = errors.Join(err, layers.Cleanup())
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	var empty *EmptyPool
	switch {
	case err == nil:
		p.layers = layers
		p.is(layers.PoolSecret())
	case errors.As(err, &empty): // its ids still come here
		p.is(empty.Secret)
		return nil
	}
	return err
}

// An EmptyPool is what opening a retired pool ends in if nothing is in it. It stays
// closed, and is known: what is not in it was deleted.
type EmptyPool struct {
	Secret string // of the pool
	Root   string // where it is left
}

func (e *EmptyPool) Error() string {
	return "it is not in the configuration and has no volumes, so it was closed; it is left under " + e.Root
}

// isEmpty reports whether the pool stays closed because nothing is in it.
func (p *Pool) isEmpty() bool {
	_, err := p.Now()
	return errors.As(err, new(*EmptyPool))
}

// takesNew returns nil if a new volume may be made in the pool, blank or from a source
// in it.
func (p *Pool) takesNew(from *volume) error {
	switch {
	case !p.Retired:
		return nil
	case from == nil: // another node may have it still
		return fmt.Errorf("%w: pool %s is not in the configuration any more, and takes no new volumes: name another pool, or configure it again", errNotHere, p.Name)
	}
	return fmt.Errorf("%w: pool %s of %s is not in the configuration any more, and takes no new volumes: configure it again", errWrongState, p.Name, from.Name)
}

// Layers returns the pool's layers, or why there are none.
func (p *Pool) Layers() (*graphdriver.Driver, error) {
	layers, err := p.Now()
	switch {
	case errors.Is(err, errNotYetOpen):
		err = fmt.Errorf("%w: pool %s: %w", deviceset.ErrUnavailable, p.Name, err)
	case err != nil:
		err = fmt.Errorf("%w: pool %s is not open: %s", deviceset.ErrUnavailable, p.Name, err.Error()) // whose code is not the call's
	}
	return layers, err
}

// Key names the pool to the orchestrator. It is empty until the pool was open for the first
// time.
func (p *Pool) Key() string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.key
}

// is notes which pool it is.
func (p *Pool) is(secret string) {
	if secret != "" {
		p.secret, p.key = secret, plugin.KeyOf(secret)
	}
}

// Secret is what the pool's key is made of. Who has it has the pool's disks.
func (p *Pool) Secret() string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.secret
}

// IsOpen reports whether the pool answers for what is in it: so does one that is empty and
// stays closed.
func (p *Pool) IsOpen() bool {
	_, err := p.Now()
	return err == nil || p.isEmpty()
}

// While closes the pool for do, and opens it again.
func (p *Pool) While(do func() error) error {
	err := p.close()
	if err == nil {
		err = do()
	}
	p.mu.Lock()
	p.closed = false
	p.mu.Unlock()
	return errors.Join(err, p.TryOpen())
}

// close lets go of the pool. What is mounted stays.
func (p *Pool) close() error {
	p.turning.Lock()
	defer p.turning.Unlock()
	p.mu.Lock()
	p.closed = true
	layers := p.layers
	if errors.As(p.err, new(*EmptyPool)) {
		p.err = deviceset.ErrShutDown // something may be in it afterwards
	}
	p.mu.Unlock()
	if layers == nil {
		return nil
	}
	return p.end(layers)
}

// end lets go of layers. Where a call hangs in the kernel that fails, and is tried again
// before the pool is opened anew.
func (p *Pool) end(layers *graphdriver.Driver) error {
	p.mu.Lock()
	p.ending, p.err = true, deviceset.ErrShutDown
	p.mu.Unlock()
	err := layers.Cleanup()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.err = fmt.Errorf("pool %s: %w", p.Name, err)
		return p.err
	}
	p.layers, p.ending = nil, false
	return nil
}

// pools are those of a node, in the order of their keys and then names.
type pools []*Pool

// named returns a pool by its name in the configuration.
func (ps pools) named(name string) (*Pool, error) {
	var known []string
	for _, p := range ps {
		if p.Name == name {
			return p, nil
		}
		if !p.Retired {
			known = append(known, p.Name)
		}
	}
	slices.Sort(known)
	return nil, fmt.Errorf("%w: this node has no pool %q: it has %s", errInvalid, name, strings.Join(known, ", "))
}

// of returns the pool of an id. While one is not open, an id that no other has may be
// its.
func (ps pools) of(i plugin.ID) (*Pool, *graphdriver.Driver, error) {
	err := fmt.Errorf("%w: no pool that is open on this node has the key %s", deviceset.ErrUnavailable, i.Pool)
	for _, p := range ps {
		layers, notOpen := p.Layers()
		switch {
		case p.Key() == i.Pool && p.isEmpty():
			return p, nil, fmt.Errorf("%w: %s: pool %s is empty", deviceset.ErrNotFound, i.Device, p.Name)
		case p.Key() == i.Pool:
			return p, layers, notOpen
		case notOpen != nil && !p.isEmpty():
			err = fmt.Errorf("%w; %w", err, notOpen)
		}
	}
	return nil, nil, err
}

// byKey returns the pools that are open or were, in the order of their keys.
func (ps pools) byKey() pools {
	open := slices.DeleteFunc(slices.Clone(ps), func(p *Pool) bool { return p.Key() == "" || p.isEmpty() })
	slices.SortFunc(open, func(a, b *Pool) int { return strings.Compare(a.Key(), b.Key()) })
	return open
}
