package gateway

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A pool is what an agent tells of one. It has no key until it was open.
type pool struct {
	name, key string
	open      bool
}

// An agent is one that is connected and was admitted, with what it has said last.
type agent struct {
	csi.ControllerClient
	*link
	node    string
	version string
	pools   []pool
}

// named returns the agent's pool of a name.
func (a *agent) named(name string) (pool, bool) {
	for _, p := range a.pools {
		if p.name == name {
			return p, true
		}
	}
	return pool{}, false
}

// keyed returns the agent's pool of a key.
func (a *agent) keyed(key string) (pool, bool) {
	for _, p := range a.pools {
		if p.key == key && key != "" {
			return p, true
		}
	}
	return pool{}, false
}

// A fleet is the agents that are connected, and what is known of those that were.
type fleet struct {
	lost func(key string) bool

	mu      sync.Mutex
	started time.Time            // when agents could come; zero before
	agents  map[string]*agent    // by their nodes' segments
	away    map[string]departure // nodes whose agents have gone, by segment
	sites   map[string]*site     // of the pools that were seen since the start, by key
	shared  map[string]time.Time // keys that several agents have, and since when
	closed  map[place]time.Time  // since when pools are not open, also of agents that have gone
	names   map[string]bool      // that pools have; nil when it is to be counted anew
	turn    chan struct{}        // closed at the next change
}

// A place is where a pool is, or was.
type place struct{ node, pool string }

// A site is where the pool of a key is, or was.
type site struct {
	key string
	place
	owners map[string]*agent // by segment
	left   time.Time         // when the last of them had it no more; zero while one has
}

// A departure is when a node's agent went.
type departure struct {
	node string
	at   time.Time
}

func newFleet(lost func(string) bool) *fleet {
	return &fleet{
		lost: lost, agents: map[string]*agent{}, away: map[string]departure{}, sites: map[string]*site{},
		shared: map[string]time.Time{}, closed: map[place]time.Time{}, turn: make(chan struct{}),
	}
}

// begin says that agents can come from now on.
func (f *fleet) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started.IsZero() {
		f.started = time.Now()
	}
}

// age returns for how long agents could come.
func (f *fleet) age() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started.IsZero() {
		return 0
	}
	return time.Since(f.started)
}

// join adds an agent, or what has changed about it. An older connection of the same node
// is returned: it is to be closed. Over an older one itself nobody joins.
func (f *fleet) join(a *agent) (replaced *agent, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	segment, now := plugin.Segment(a.node), time.Now()
	old := f.agents[segment]
	switch {
	case old == nil:
	case old.visit > a.visit:
		return nil, false
	case old.link != a.link:
		replaced = old
	}
	f.agents[segment] = a
	delete(f.away, segment)
	if old != nil {
		f.disown(segment, old, a, now)
	}
	for at := range f.closed {
		if _, still := a.named(at.pool); at.node == a.node && !still {
			delete(f.closed, at)
		}
	}
	for _, p := range a.pools {
		at := place{a.node, p.name}
		if _, was := f.closed[at]; p.open {
			delete(f.closed, at)
		} else if !was {
			f.closed[at] = now
		}
		if p.key == "" {
			continue
		}
		s := f.sites[p.key]
		if s == nil {
			s = &site{key: p.key, owners: map[string]*agent{}}
			f.sites[p.key] = s
		}
		s.place, s.left = at, time.Time{}
		s.owners[segment] = a
		if _, is := f.shared[p.key]; !is && len(s.owners) > 1 {
			f.shared[p.key] = now
		}
	}
	if len(f.sites) > mostSites {
		f.forget(a.node)
	}
	f.turned()
	return replaced, true
}

// mostSites is how many pools a cluster may have had before those that nobody has any more
// are forgotten, of a node that brings new ones.
const mostSites = 20_000

// forget forgets the pools that a node has brought and has no more.
func (f *fleet) forget(node string) {
	maps.DeleteFunc(f.sites, func(_ string, s *site) bool { return s.node == node && len(s.owners) == 0 })
}

// disown takes from an agent what it does not have as next any more.
func (f *fleet) disown(segment string, old, next *agent, now time.Time) {
	for _, p := range old.pools {
		s := f.sites[p.key]
		if _, still := next.keyed(p.key); still || s == nil {
			continue
		}
		if delete(s.owners, segment); len(s.owners) < 2 {
			delete(f.shared, p.key)
		}
		if len(s.owners) == 0 {
			s.left = now
		}
		for _, other := range s.owners {
			theirs, _ := other.keyed(p.key)
			s.place = place{other.node, theirs.name}
		}
	}
}

// leave removes the agent of a node, if that is who came over a connection.
func (f *fleet) leave(node string, l *link) (left bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	segment, now := plugin.Segment(node), time.Now()
	a := f.agents[segment]
	if a == nil || a.link != l {
		return false
	}
	delete(f.agents, segment)
	f.away[segment] = departure{node, now}
	f.disown(segment, a, &agent{}, now)
	f.turned()
	return true
}

func (f *fleet) turned() {
	close(f.turn)
	f.turn, f.names = make(chan struct{}), nil
}

// on returns the agent of a node, by its segment; or, when there is none, since when.
func (f *fleet) on(segment string) (a *agent, gone departure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.agents[segment]; a != nil {
		return a, departure{}
	}
	if gone, ok := f.away[segment]; ok {
		return nil, gone
	}
	return nil, departure{segment, f.started}
}

// owners returns the agents that have a pool: more than one are too many.
func (f *fleet) owners(key string) []*agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sites[key]
	if s == nil {
		return nil
	}
	return inOrder(maps.Values(s.owners))
}

// all returns the agents, by the names of their nodes.
func (f *fleet) all() []*agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return inOrder(maps.Values(f.agents))
}

func inOrder(agents func(func(*agent) bool)) []*agent {
	return slices.SortedFunc(agents, func(a, b *agent) int { return strings.Compare(a.node, b.node) })
}

// closedSince returns since when a pool is not open.
func (f *fleet) closedSince(at place) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed[at]
}

// sharedSince returns since when several agents have a pool.
func (f *fleet) sharedSince(key string) (since time.Time, shared bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since, shared = f.shared[key]
	return since, shared
}

// isHere reports whether a node's agent is connected.
func (f *fleet) isHere(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.agents[plugin.Segment(node)] != nil
}

// neverOpen returns the pools that are not open, and were not since the start: they have
// no key, and hence no site.
func (f *fleet) neverOpen() map[place]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := maps.Clone(f.closed)
	for _, s := range f.sites {
		delete(all, s.place)
	}
	return all
}

// where returns where the pool of a key is, or was when it was last seen.
func (f *fleet) where(key string) (s site, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sites[key]; s != nil {
		return site{key: key, place: s.place, left: s.left}, true
	}
	return site{}, false
}

// everywhere returns where all pools are, or were when they were last seen, in the order
// of their keys. Those that were given up are left out.
func (f *fleet) everywhere() (all []site) {
	f.mu.Lock()
	for key, s := range f.sites {
		all = append(all, site{key: key, place: s.place, left: s.left})
	}
	f.mu.Unlock()
	all = slices.DeleteFunc(all, func(s site) bool { return f.lost(s.key) })
	slices.SortFunc(all, func(a, b site) int { return strings.Compare(a.key, b.key) })
	return all
}

// hasName reports whether a pool has a name, open or not, anywhere.
func (f *fleet) hasName(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.namesLocked()[name]
}

// allNames returns the names that pools have.
func (f *fleet) allNames() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.namesLocked()))
}

func (f *fleet) namesLocked() map[string]bool {
	if f.names == nil {
		f.names = map[string]bool{}
		for _, s := range f.sites {
			f.names[s.pool] = true
		}
		for at := range f.closed {
			f.names[at.pool] = true
		}
	}
	return f.names
}

// conflicts returns the pools that several nodes have, and those nodes.
func (f *fleet) conflicts() map[string][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodes := map[string][]string{}
	for key := range f.shared {
		for _, a := range inOrder(maps.Values(f.sites[key].owners)) {
			nodes[key] = append(nodes[key], a.node)
		}
	}
	return nodes
}

// change returns a channel that is closed when an agent comes, goes or changes.
func (f *fleet) change() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.turn
}
