// Tally runs go test -json and prints what go test -v would, but keeps the
// packages' result lines for the end and puts a count of the tests before them.
//
//	tally NAME go test -json [ARG...]
//
// It exits as go test does. Only where $CI is set, a skipped test fails the run:
// nobody there reads why it was skipped.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: tally NAME go test -json [ARG...]")
		os.Exit(2)
	}
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		fail(err)
	}
	if err := cmd.Start(); err != nil {
		fail(err)
	}
	var t tally
	if err := t.read(events, os.Stdout); err != nil {
		fail(err)
	}
	err = cmd.Wait()
	t.report(os.Args[1], os.Stdout)
	if status := cmd.ProcessState.ExitCode(); status != 0 {
		os.Exit(status)
	}
	if err != nil {
		fail(err)
	}
	if len(t.names("skip")) > 0 && os.Getenv("CI") != "" {
		fail(errors.New("a test was skipped, which CI does not allow"))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "tally:", err)
	os.Exit(1)
}
