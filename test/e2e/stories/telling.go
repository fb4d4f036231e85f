package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// A story is told in a scene, and fails by the scene's verbs.
type story struct {
	name  string
	needs []need
	alone bool        // it would disturb others
	pool  *sync.Mutex // whose room it needs for itself, if it does
	tell  func(*scene)
}

// A need returns why the cluster cannot show a story, or "".
type need func(*cluster) string

// A telling is the telling of all stories that were asked for.
type telling struct {
	cluster  *cluster
	settings settings

	mutex                sync.Mutex
	told, failed, passed int
}

// all tells the stories: together those that can be, then each of the others alone.
func (t *telling) all(ctx context.Context, stories []story) error {
	begin := time.Now()
	var group sync.WaitGroup
	slots := make(chan struct{}, t.settings.parallel)
	for _, s := range t.wanted(stories, false) {
		group.Go(func() {
			if s.pool != nil {
				s.pool.Lock()
				defer s.pool.Unlock()
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			t.one(ctx, s)
		})
	}
	group.Wait()
	for _, s := range t.wanted(stories, true) {
		t.one(ctx, s)
	}
	fmt.Printf("%d passed, %d failed, %d skipped in %v\n",
		t.passed, t.failed, t.told-t.passed-t.failed, seconds(time.Since(begin)))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case t.failed > 0:
		return fmt.Errorf("%d of %d stories failed", t.failed, t.told)
	case t.told == 0:
		return fmt.Errorf("no story is called like %q", t.settings.run)
	}
	return nil
}

func (t *telling) wanted(stories []story, alone bool) (list []story) {
	for _, s := range stories {
		if s.alone == alone && t.settings.run.MatchString(s.name) {
			list = append(list, s)
		}
	}
	return list
}

// one tells a story and prints how it ended.
func (t *telling) one(ctx context.Context, told story) {
	if ctx.Err() != nil {
		return
	}
	for _, need := range told.needs {
		if why := need(t.cluster); why != "" {
			t.print(false, false, fmt.Sprintf("SKIP %s: %s\n", told.name, why))
			return
		}
	}
	begin := time.Now()
	s, err := t.cluster.newScene(ctx, told.name)
	if err == nil {
		err = t.play(s, told)
	}
	took := seconds(time.Since(begin))
	if err != nil {
		t.print(false, true, fmt.Sprintf("FAIL %s %v: %v\n", told.name, took, err))
		return
	}
	t.print(true, false, fmt.Sprintf("ok   %-68s %5v\n%s", told.name, took, indent(strings.Join(s.notes, "\n"))))
}

// play tells the story and clears up behind it. The error has what is to be known.
func (t *telling) play(s *scene, told story) error {
	err := performed(func() { told.tell(s) })
	var details string
	if err != nil {
		details = s.details() // before it is removed
	}
	// Also of what was interrupted nothing should stay.
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(context.WithoutCancel(s.ctx), 5*time.Minute)
	defer cancel()
	failed := errors.Join(err, s.end())
	if failed == nil || !t.settings.keep {
		left := s.clearUp()
		if left != nil && details == "" {
			details = s.details()
		}
		failed = errors.Join(failed, left)
	}
	if failed == nil {
		return nil
	}
	return fmt.Errorf("%w\n%s", failed, indent(details))
}

func (t *telling) print(passed, failed bool, text string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.told++
	if passed {
		t.passed++
	}
	if failed {
		t.failed++
	}
	_, _ = os.Stdout.WriteString(text)
}

// A failure is what a scene's verbs end a story with.
type failure struct{ reason string }

func (f failure) Error() string { return f.reason }

// performed returns with what failure do ended.
func performed(do func()) (err error) {
	defer func() {
		switch end := recover().(type) {
		case nil:
		case failure:
			err = end
		default:
			err = fmt.Errorf("%v\n%s", end, debug.Stack())
		}
	}()
	do()
	return nil
}

func seconds(d time.Duration) time.Duration { return d.Round(time.Second) }

func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "     " + strings.ReplaceAll(text, "\n", "\n     ") + "\n"
}
