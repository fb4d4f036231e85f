package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// A lastLine is what pid 1 says when the command has ended: its status, and how
// many bytes it wrote to stdout and stderr. They may still be on their way, so
// the guest stays until all of them are here.
type lastLine struct {
	Status         int
	Stdout, Stderr int64
}

// String prints l as pid 1 says it: <status> <bytes of stdout> <bytes of stderr>.
func (l lastLine) String() string {
	return fmt.Sprintf("%d %d %d\n", l.Status, l.Stdout, l.Stderr)
}

// parseLastLine reads what String prints.
func parseLastLine(s string) (l lastLine, err error) {
	if !strings.HasSuffix(s, "\n") {
		return l, io.ErrUnexpectedEOF
	}
	_, err = fmt.Sscanf(s, "%d %d %d\n", &l.Status, &l.Stdout, &l.Stderr)
	return l, err
}

// An output is the pipes of a guest and what came out of them.
type output struct {
	inlets  []*os.File // the guest's ends: stdout, stderr, last line
	outlets []*os.File // ours

	stdout, stderr int64 // bytes so far
	last           string
	err            error // some could not be passed on
}

// inlets is the number of pipes.
const inlets = 3

func newOutput() (*output, error) {
	o := &output{}
	for range inlets {
		outlet, inlet, err := os.Pipe()
		if err != nil {
			o.close()
			return nil, err
		}
		o.outlets = append(o.outlets, outlet)
		o.inlets = append(o.inlets, inlet)
	}
	return o, nil
}

func (o *output) close() {
	o.closeInlets()
	closeAll(o.outlets)
}

// closeInlets leaves the inlets to the guest, so that they end with it.
func (o *output) closeInlets() { closeAll(o.inlets) }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// copy passes on what the guest writes until nobody can write any more. As soon
// as everything that the last line announces is here, it calls complete.
func (o *output) copy(stdout, stderr io.Writer, complete func()) {
	for c := range o.chunks() {
		switch c.outlet {
		case 0:
			o.stdout += o.pass(stdout, c.data)
		case 1:
			o.stderr += o.pass(stderr, c.data)
		case 2:
			o.last += string(c.data)
		}
		if _, ok := o.status(); ok {
			complete()
		}
	}
}

// pass writes data to w and returns their length. The guest is not held up by
// data that cannot be written.
func (o *output) pass(w io.Writer, data []byte) int64 {
	if _, err := w.Write(data); err != nil && o.err == nil {
		o.err = err
	}
	return int64(len(data))
}

// status returns the command's status, if it and all output are here.
func (o *output) status() (status int, ok bool) {
	last, err := parseLastLine(o.last)
	return last.Status, err == nil && last.Stdout == o.stdout && last.Stderr == o.stderr
}

// A chunk is data from one of the outlets.
type chunk struct {
	outlet int
	data   []byte
}

// chunks returns what comes out of the outlets, until the end of all.
func (o *output) chunks() <-chan chunk {
	chunks := make(chan chunk)
	var readers sync.WaitGroup
	for i, outlet := range o.outlets {
		readers.Go(func() {
			for {
				data := make([]byte, 64<<10)
				n, err := outlet.Read(data)
				if err != nil {
					return
				}
				chunks <- chunk{i, data[:n]}
			}
		})
	}
	go func() {
		readers.Wait()
		close(chunks)
	}()
	return chunks
}
