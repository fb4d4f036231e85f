// Bench measures device-mapper as this project drives it: each ioctl and message,
// one after the other and 16 at a time, beside the same through dmsetup. It needs
// root and a kernel with thin provisioning, so it runs in the box: make bench.
//
// Compare columns, not runs: in a virtual machine starting a process weighs more
// than on bare metal, which the calibration rows show, and only counts of flushes
// are the same everywhere.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ours := flag.Int("n", 200, "how often each operation is measured")
	execs := flag.Int("exec-n", 32, "how often each operation is measured that starts a process")
	only := flag.String("only", "", "measure only the operations whose names contain this")
	flag.Parse()
	if err := run(*ours, *execs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ours, execs int, only string) (err error) {
	rig, err := newRig()
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := rig.close(); err == nil {
			err = closeErr
		}
	}()
	fmt.Println(label())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer func() { _ = w.Flush() }() // to standard output, like everything here
	fmt.Fprintln(w, "operation\tp50\tp99\t16 at once\tp50\tp99\tflushes\tdmsetup\tp50\tp99\t16 at once\tp50\tp99\tratio of p50\t")
	for _, op := range append(calibration(rig), operations(rig)...) {
		if !strings.Contains(op.name, only) {
			continue
		}
		row, err := measure(rig, op, ours, execs)
		if err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
		fmt.Fprintln(w, row)
	}
	return nil
}

// label says where the figures are from.
func label() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	where := os.Getenv("BOX_KERNEL")
	if where == "" {
		where = "this machine"
	}
	return fmt.Sprintf("Linux %s (%s), %d CPU, pool on loop devices over memory; times in microseconds",
		unix.ByteSliceToString(u.Release[:]), where, runtime.NumCPU())
}

// micros prints a time as tables have it.
func micros(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/float64(time.Microsecond)) }
