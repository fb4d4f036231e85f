package gateway

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// An agent is one that is connected and was admitted.
type agent struct {
	csi.ControllerClient
	node    string
	version string
	conn    *grpc.ClientConn
	pools   map[string]string // names, by key
}

// has returns the key of the agent's pool of that name.
func (a *agent) has(name string) (key string, ok bool) {
	for key, have := range a.pools {
		if have == name {
			return key, true
		}
	}
	return "", false
}

// A fleet is the agents that are connected, and what is known of those that were.
type fleet struct {
	lost    func(key string) bool
	started time.Time

	mu     sync.Mutex
	agents map[string]*agent    // by their node's segment
	gone   map[string]time.Time // when nodes went away
	seen   map[string]place     // of each pool since the start, by its key
	turn   chan struct{}        // closed at the next change
}

// A place is where a pool is, or was.
type place struct{ node, pool string }

func newFleet(lost func(string) bool) *fleet {
	return &fleet{
		lost: lost, started: time.Now(),
		agents: map[string]*agent{}, gone: map[string]time.Time{}, seen: map[string]place{}, turn: make(chan struct{}),
	}
}

// join adds an agent, or what has changed about it. Another connection of the same node
// is returned: it is to be closed.
func (f *fleet) join(a *agent) (replaced *agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	segment := plugin.Segment(a.node)
	if old := f.agents[segment]; old != nil && old.conn != a.conn {
		replaced = old
	}
	f.agents[segment] = a
	delete(f.gone, segment)
	for key, name := range a.pools {
		f.seen[key] = place{a.node, name}
	}
	f.turned()
	return replaced
}

// leave removes what came over a connection.
func (f *fleet) leave(conn *grpc.ClientConn) (left bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for segment, a := range f.agents {
		if a.conn == conn {
			delete(f.agents, segment)
			f.gone[segment] = time.Now()
			f.turned()
			return true
		}
	}
	return false
}

func (f *fleet) turned() {
	close(f.turn)
	f.turn = make(chan struct{})
}

// on returns the agent of a node, by its segment; or since when there is none.
func (f *fleet) on(segment string) (a *agent, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.agents[segment]; a != nil {
		return a, time.Time{}
	}
	if since, ok := f.gone[segment]; ok {
		return nil, since
	}
	return nil, f.started
}

// owners returns the agents that have a pool: more than one are too many.
func (f *fleet) owners(key string) (all []*agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ownersLocked(key)
}

func (f *fleet) ownersLocked(key string) (all []*agent) {
	for _, a := range f.agents {
		if _, ok := a.pools[key]; ok {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *agent) int { return strings.Compare(a.node, b.node) })
	return all
}

// all returns the agents, by the names of their nodes.
func (f *fleet) all() []*agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.agents), func(a, b *agent) int { return strings.Compare(a.node, b.node) })
}

// usable reports whether volumes may be sent to a pool of a: neither is it given up, nor
// does another node have it too.
func (f *fleet) usable(key string) bool {
	return !f.lost(key) && len(f.owners(key)) == 1
}

// places returns where the pools are, or were when they were last seen, by their keys.
// Those that were given up are none.
func (f *fleet) places() map[string]place {
	f.mu.Lock()
	all := maps.Clone(f.seen)
	f.mu.Unlock()
	maps.DeleteFunc(all, func(key string, _ place) bool { return f.lost(key) })
	return all
}

// conflicts returns the pools that several nodes have, and those nodes.
func (f *fleet) conflicts() map[string][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodes := map[string][]string{}
	for key := range f.seen {
		for _, a := range f.ownersLocked(key) {
			nodes[key] = append(nodes[key], a.node)
		}
	}
	maps.DeleteFunc(nodes, func(_ string, of []string) bool { return len(of) < 2 })
	return nodes
}

// change returns a channel that is closed when an agent comes, goes or changes.
func (f *fleet) change() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.turn
}
