package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Steps prints a line for each thing done, and when that was.
type steps struct{ start time.Time }

func newSteps() *steps { return &steps{time.Now()} }

func (s *steps) done(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// poll asks until the answer is yes. The last reason for a no is part of the error
// if time runs out first.
func poll(ctx context.Context, limit time.Duration, what string, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, limit, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
