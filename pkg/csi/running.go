package csi

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
)

// running are the calls that change something, by what they are about: one at a time for
// each volume and snapshot, whichever server it came by.
type running struct {
	mu   sync.Mutex
	each map[string]*run
}

// A run is a call that is being carried out. Its answer is there when it is done.
type run struct {
	method  string
	request any
	done    chan struct{}
	answer  any
	err     error
}

// join carries a call out; or, if the same call is being carried out already, because its
// caller gave up or lost the connection and has asked again, waits for that and answers
// what it answers. Another call about the same is pending.
func (s *running) join(ctx context.Context, about, method string, r any, do func() (any, error)) (any, error) {
	s.mu.Lock()
	if first := s.each[about]; first != nil {
		s.mu.Unlock()
		if !first.is(method, r) {
			return nil, fmt.Errorf("%w: %s", errPending, about)
		}
		select {
		case <-first.done:
			return first.answer, first.err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s goes on", ctx.Err(), about)
		}
	}
	if s.each == nil {
		s.each = map[string]*run{}
	}
	mine := &run{method: method, request: r, done: make(chan struct{})}
	s.each[about] = mine
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.each, about)
		s.mu.Unlock()
		close(mine.done)
	}()
	mine.answer, mine.err = do()
	return mine.answer, mine.err
}

func (f *run) is(method string, r any) bool {
	one, ok := f.request.(proto.Message)
	other, too := r.(proto.Message)
	return ok && too && f.method == method && proto.Equal(one, other)
}

// about reports whether something is being changed.
func (s *running) about(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each[name] != nil
}
