package dmfault

import (
	"fmt"
	"strings"
	"sync"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// A Trace writes down what a kernel is asked and how it answers errors, one line
// a request, for transcripts that a reader can check.
type Trace struct {
	kernel dm.Kernel
	mu     sync.Mutex
	lines  []string
}

// NewTrace returns a Trace of k.
func NewTrace(k dm.Kernel) *Trace { return &Trace{kernel: k} }

// Do passes a request on.
func (t *Trace) Do(r dm.Request) (dm.Reply, error) {
	reply, err := t.kernel.Do(r)
	line := r.String()
	if err != nil {
		line += fmt.Sprintf(": %v", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
	return reply, err
}

// String returns the lines so far.
func (t *Trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n") + "\n"
}
