package deviceset_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
)

// A process is this machine as a process has it that can die within the test: what
// it has opened is closed, and nothing that it asks for happens any more.
type process struct {
	*deviceset.Host

	mu   sync.Mutex
	plan *dmfault.Plan // for what device-mapper is asked; may be nil
	open []io.Closer
	dead bool
}

// process opens the device set of the lab's root in a process of its own.
func (l *kernelLab) process(options ...string) (*deviceset.DeviceSet, *process) {
	l.Helper()
	p := l.newProcess()
	s, err := deviceset.Open(p, l.root, true, options, nil, nil)
	l.must(err)
	l.Cleanup(func() {
		if p.isDead() {
			return
		}
		if err := s.Shutdown(l.root); err != nil {
			l.Error(err)
		}
	})
	return s, p
}

func (l *kernelLab) newProcess() *process {
	l.Helper()
	host, err := deviceset.ThisMachine()
	l.must(err)
	return &process{Host: host}
}

// die ends the process of s, which is nil if it had not come to be.
func (p *process) die(s *deviceset.DeviceSet) {
	p.mu.Lock()
	p.dead = true
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	if s != nil {
		_ = s.Shutdown("") // ends its goroutines, and gets nothing else done
	}
	_ = p.Close() // after that nobody asks
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// breakWith makes a plan hold from now on; nil ends it.
func (p *process) breakWith(plan *dmfault.Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

func (p *process) keep(c io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, c)
}

func (p *process) Do(r dm.Request) (reply dm.Reply, err error) {
	p.mu.Lock()
	plan, dead := p.plan, p.dead
	p.mu.Unlock()
	if dead {
		return dm.Reply{}, dmfault.ErrCrashed
	}
	step := func() error {
		reply, err = p.Host.Do(r)
		return err
	}
	if plan != nil {
		err = plan.Do(r.String(), step)
	} else {
		err = step()
	}
	return reply, err
}

func (p *process) Watch() (dm.Watch, error) {
	w, err := p.Host.Watch()
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (p *process) Lock(root string) (io.Closer, error) {
	lock, err := p.Host.Lock(root)
	if err == nil {
		p.keep(lock)
	}
	return lock, err
}

func (p *process) OpenSlots(root string) ([2]deviceset.Block, error) {
	slots, err := p.Host.OpenSlots(root)
	if err == nil {
		p.keep(slots[0])
		p.keep(slots[1])
	}
	return slots, err
}

func (p *process) OpenFile(path string, size int64, with deviceset.Filling) (deviceset.Disk, error) {
	d, err := p.Host.OpenFile(path, size, with)
	if err == nil {
		p.keep(d)
	}
	return d, err
}

func (p *process) OpenDisk(path string) (deviceset.Disk, error) {
	d, err := p.Host.OpenDisk(path)
	if err == nil {
		p.keep(d)
	}
	return d, err
}

func (p *process) OpenDevice(i dm.Info, exclusive bool) (deviceset.Block, error) {
	b, err := p.Host.OpenDevice(i, exclusive)
	if err == nil {
		p.keep(b)
	}
	return b, err
}

// waitIdle waits until a worker has nothing left to do.
func (l *kernelLab) waitIdle(s *deviceset.DeviceSet) {
	l.Helper()
	l.waitFor("pending deletions to end", func() bool { return s.Status().DeferredDeletedDeviceCount == 0 })
}

// nextEvent waits for an event of a kind.
func (l *kernelLab) nextEvent(s *deviceset.DeviceSet, kind deviceset.EventKind) deviceset.Event {
	l.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("too late"))
	defer cancel()
	for {
		select {
		case e, ok := <-s.Events():
			if !ok {
				l.Fatalf("the events ended before %q", kind)
			}
			if e.Kind == kind {
				return e
			}
			l.Log(e)
		case <-ctx.Done():
			l.Fatalf("waited %v in vain for event %q", patience, kind)
		}
	}
}

// within fails if do takes longer.
func (l *kernelLab) within(limit time.Duration, what string, do func()) {
	l.Helper()
	begin := time.Now()
	do()
	if took := time.Since(begin); took > limit {
		l.Errorf("%s took %v, want %v at most", what, took, limit)
	}
}
