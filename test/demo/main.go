// Demo shows what csi-dmthin is for: a database on a volume, and what may happen
// to it. It starts the server on a pool of two files and speaks to it through its
// socket alone, as an orchestrator does; PostgreSQL is the witness that nothing is
// lost. The demo fails if anything is not as it should be, or is left behind.
//
// It needs root, PostgreSQL 15 of Debian 12, and a kernel with thin provisioning,
// so it runs in the box: make demo.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	begin := time.Now()
	s, err := newStage()
	if err != nil {
		return err
	}
	for _, step := range newStory(s).steps() {
		if err := s.show(step); err != nil {
			fmt.Print(s.lastWords())
			return errors.Join(fmt.Errorf("%s: %w", step.name, err), s.close())
		}
	}
	if err := s.close(); err != nil {
		return err
	}
	fmt.Printf("\nall is well, and nothing is left behind: %s\n", time.Since(begin).Round(time.Second))
	return nil
}
