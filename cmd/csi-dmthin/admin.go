package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

const defaultAdminSocket = "/run/csi-dmthin/admin.sock"

// serveAdmin serves the operator's commands on a socket that only root may use. It does
// so before pools are open, and while one hangs: that is when somebody wants to look.
func (c *config) serveAdmin(ctx context.Context, driver *csi.Driver, failed chan<- error) (*http.Server, error) {
	l, err := csi.Listen(ctx, "unix://"+c.AdminSocket)
	if err != nil {
		return nil, fmt.Errorf("--admin-socket: %w", err)
	}
	a := newAdmin(c, driver.Pools)
	server := &http.Server{Handler: a.routes(), ReadHeaderTimeout: 5 * time.Second}
	go func() { failed <- server.Serve(l) }()
	return server, nil
}

// An admin answers what an operator asks of an agent.
type admin struct {
	config *config
	pools  []*csi.Pool
	open   func() (machine, error)
	root   func(pool string) string
	pause  time.Duration // between two looks of a check

	adopting sync.Mutex // one at a time closes a pool and opens it again
}

func newAdmin(c *config, pools []*csi.Pool) *admin {
	return &admin{config: c, pools: pools, open: openThisMachine, root: c.root, pause: checkPause}
}

// A machine is one that a pool is on, and is let go of after use.
type machine interface {
	deviceset.Machine
	io.Closer
}

// thisMachine is the machine that the process runs on, with its requests logged.
type thisMachine struct {
	*deviceset.Host
	kernel dm.Kernel
}

func openThisMachine() (machine, error) {
	host, err := deviceset.ThisMachine()
	if err != nil {
		return nil, err
	}
	return thisMachine{host, traced{host}}, nil
}

func (m thisMachine) Do(r dm.Request) (dm.Reply, error) { return m.kernel.Do(r) }

// named returns the pools of a name, or all if it is empty.
func (a *admin) named(name string) ([]*csi.Pool, error) {
	if name == "" {
		return a.pools, nil
	}
	var known []string
	for _, p := range a.pools {
		if p.Name == name {
			return []*csi.Pool{p}, nil
		}
		known = append(known, p.Name)
	}
	slices.Sort(known)
	return nil, &requestError{http.StatusNotFound, fmt.Errorf("the agent has no pool %q: it has %s", name, strings.Join(known, ", "))}
}

// patienceWithPool is how long an answer about a pool may take. A disk that does not
// answer lets the kernel wait for ever.
const patienceWithPool = 10 * time.Second

// within returns what ask returns, unless it takes longer than that: then the zero of it
// and false. What was asked goes on waiting on its own.
func within[T any](patience time.Duration, ask func() T) (answer T, ok bool) {
	answered := make(chan T, 1)
	go func() { answered <- ask() }()
	select {
	case answer = <-answered:
		return answer, true
	case <-time.After(patience):
		return answer, false
	}
}

// eachPool asks all pools at once, and returns their answers in order.
func eachPool[T any](pools []*csi.Pool, ask func(*csi.Pool) T, late func(*csi.Pool) T) []T {
	answers := make([]T, len(pools))
	var all sync.WaitGroup
	for i, p := range pools {
		all.Go(func() {
			answer, ok := within(patienceWithPool, func() T { return ask(p) })
			if !ok {
				answer = late(p)
			}
			answers[i] = answer
		})
	}
	all.Wait()
	return answers
}

// hangs says why a pool did not answer in time.
const hangs = "it does not answer: its disk may hang (dmesg), or something is suspended (dmsetup info -c -o name,suspended)"
