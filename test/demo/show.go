package main

import (
	"fmt"
	"strings"
	"time"
)

// A step is a sentence of the story. It tells in a few words what was found.
type step struct {
	name string
	do   func() (found string, err error)
}

// show does a step and prints it: what it is before it begins, and then how long
// it took, how full the pool is, and what was found.
func (s *stage) show(step step) error {
	fmt.Printf("%-58s", step.name)
	begin := time.Now()
	found, err := step.do()
	if err != nil {
		fmt.Println("  failed")
		return err
	}
	fmt.Printf(" %7s   %s\n", round(time.Since(begin)), s.fill())
	if found != "" {
		fmt.Printf("    %s\n", found)
	}
	return nil
}

// round leaves of a duration what a reader wants to know.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// fill draws how full the pool is, as the kernel says.
func (s *stage) fill() string {
	used, total, err := s.poolUse()
	if err != nil || total == 0 {
		return ""
	}
	const width = 24
	full := int((used*width + total - 1) / total)
	bar := strings.Repeat("#", full) + strings.Repeat(".", width-full)
	return fmt.Sprintf("[%s] %4d of %d MiB", bar, used/mib, total/mib)
}
