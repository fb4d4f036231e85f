// Demo shows on a real kernel what the project drives: a thin pool, a volume with
// a file system, a snapshot taken while the volume is written, a pool that is full
// and grows, and nothing left at the end. It needs root and a kernel with thin
// provisioning, so it runs in the box: make demo.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	s, err := newStage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, step := range s.steps() {
		begin := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("%-58s %8s   %s\n", step.name, time.Since(begin).Round(100*time.Microsecond), s.fill())
	}
	return s.nothingLeft()
}

// fill draws how full the pool is.
func (s *stage) fill() string {
	status, err := s.pool.PoolStatus()
	if err != nil || !status.Known() {
		return ""
	}
	const width = 24
	full := int(status.Data.Used * width / max(status.Data.Total, 1))
	bar := ""
	for i := range width {
		if i < full {
			bar += "#"
		} else {
			bar += "."
		}
	}
	return fmt.Sprintf("[%s] %d of %d blocks, %s", bar, status.Data.Used, status.Data.Total, status.Mode)
}

// nothingLeft fails if the demo left something behind.
func (s *stage) nothingLeft() error {
	if err := s.close(); err != nil {
		return err
	}
	left, err := dmtest.DevicesAndLoops(s.kernel)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind: %v", left)
	}
	if err == nil {
		fmt.Println("nothing is left behind")
	}
	return errors.Join(err, s.kernel.Close())
}

func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
