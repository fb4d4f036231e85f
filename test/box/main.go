// Box runs a command as root on a real Linux kernel with device-mapper thin
// pools, on a machine whose own kernel may have none.
//
//	box [-kernel uml|smp|host] [-mem 2G] [-cpus 2] [-timeout 10m]
//	    [-disk FILE[:SIZE]]... [-out DIR] [-tap DEVICE] COMMAND [ARG...]
//
// It is made for `go test -exec`: every default can be set from the
// environment (BOX, BOX_MEM, BOX_CPUS, BOX_TIMEOUT, BOX_DISKS, BOX_OUT).
//
// The command sees the files of this machine, the current directory and the
// environment. What it writes vanishes, except in the -out folder and on the
// -disk files, which last from one boot to the next. Only with -kernel host,
// where there is no second kernel, does everything last.
//
// Inside, BOX_KERNEL tells which kernel it is, BOX_OUT the -out folder, and
// BOX_DISKS the block devices of the -disk files, in their order.
//
// The exit status is the command's, 128+n if signal n killed it, and 125 if the
// box itself failed or ran out of time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// boxFailed is the exit status that belongs to no command.
const boxFailed = 125

func main() {
	switch job := os.Getenv(jobVariable); {
	case job != "" && os.Getpid() == 1:
		beInit(job)
	case os.Args[0] == cageName:
		beCage(os.Args[1], os.Args[2:])
	}
	os.Exit(run(os.Args[1:]))
}

// run boots, runs and cleans up; it returns the status to exit with.
func run(args []string) int {
	config, err := parseConfig(args, os.Getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, config.Timeout,
		fmt.Errorf("not finished after %v: give it longer with -timeout or BOX_TIMEOUT", config.Timeout))
	defer cancel()

	status, err := config.boot(ctx)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", config.Kernel, err))
	}
	return status
}

// boot runs the configured command on the configured kernel.
func (c *Config) boot(ctx context.Context) (int, error) {
	disks, err := openDisks(c.Disks)
	if err != nil {
		return 0, err
	}
	defer disks.close()
	job, err := newJob(c)
	if err != nil {
		return 0, err
	}
	return kernels[c.Kernel].Run(ctx, c, job, disks)
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "box:", err)
	return boxFailed
}
