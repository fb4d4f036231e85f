package csi

import (
	"fmt"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// ask asks a pool something that the kernel may never answer, such as for its status while
// a disk hangs. Then the caller does not wait, and no more than so many questions do: each
// of them holds a thread.
func ask[T any](p *Pool, question func(*graphdriver.Driver) T) (answer T, err error) {
	layers, err := p.Layers()
	if err != nil {
		return answer, err
	}
	if p.asked.Add(1) > mostAsked {
		p.asked.Add(-1)
		return answer, fmt.Errorf("%w: pool %s does not answer", deviceset.ErrUnavailable, p.Name)
	}
	answered := make(chan T, 1)
	go func() {
		defer p.asked.Add(-1)
		answered <- question(layers)
	}()
	select {
	case answer = <-answered:
		return answer, nil
	case <-time.After(askPatience):
		return answer, fmt.Errorf("%w: pool %s does not answer", deviceset.ErrUnavailable, p.Name)
	}
}

const (
	mostAsked   = 64
	askPatience = 5 * time.Second
)
