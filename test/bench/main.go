// Bench measures device-mapper as this project drives it: each ioctl and message,
// one after the other and 16 at a time, beside the same through dmsetup; then each
// verb of a DeviceSet, with few devices and with many. It needs root and a kernel
// with thin provisioning, so it runs in the box: make bench.
//
// What has a limit, such as the flushes of a create, is printed last. Beyond one of
// them the bench fails.
//
// Compare columns, not runs: in a virtual machine starting a process weighs more
// than on bare metal, which the calibration rows show, and only counts of flushes
// are the same everywhere.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

func main() {
	if len(os.Args) > 3 && os.Args[1] == startCommand {
		end(beStarted(os.Args[2], os.Args[3], os.Args[4:]))
	}
	var b bench
	flag.IntVar(&b.times, "n", 200, "how often each operation is measured")
	flag.IntVar(&b.execs, "exec-n", 32, "how often each operation is measured that starts a process")
	flag.IntVar(&b.devices, "devices", 10000, "how many devices there are in the end")
	flag.StringVar(&b.only, "only", "", "measure only the operations whose names contain this")
	flag.Parse()
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard) // a driver logs each call
	end(b.run())
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A bench is what is asked for.
type bench struct {
	times, execs, devices int
	only                  string
}

func (b bench) run() error {
	fmt.Println(label())
	if err := b.kernel(); err != nil {
		return err
	}
	return b.sets()
}

// wants reports whether something is to be measured.
func (b bench) wants(name string) bool { return strings.Contains(name, b.only) }

// kernel measures what device-mapper is asked for.
func (b bench) kernel() (err error) {
	rig, err := newRig()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.close()) }()
	w := newTable("operation\tp50\tp99\t16 at once\tp50\tp99\tflushes\tdmsetup\tp50\tp99\t16 at once\tp50\tp99\tratio of p50\t")
	defer func() { _ = w.Flush() }() // to standard output, like everything here
	for _, op := range append(calibration(rig), operations(rig)...) {
		if !b.wants(op.name) {
			continue
		}
		row, err := measure(rig, op, b.times, b.execs)
		if err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
		fmt.Fprintln(w, row)
	}
	return nil
}

func newTable(head string) *tabwriter.Writer {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, head)
	return w
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
