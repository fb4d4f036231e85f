package dmsim

import (
	"context"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// event counts an event of d, for those who wait for d and for those who watch
// them all.
func (d *device) event() {
	d.eventNr++
	d.kernel.events++
	d.kernel.changed.Broadcast()
}

// Watch begins to watch for events.
func (k *Kernel) Watch() (dm.Watch, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &watch{kernel: k, seen: k.events}, nil
}

type watch struct {
	kernel *Kernel
	seen   uint64
}

func (w *watch) Wait(ctx context.Context) error {
	k := w.kernel
	stop := context.AfterFunc(ctx, func() {
		k.mu.Lock() // not between the waiter's look at ctx and its Wait
		defer k.mu.Unlock()
		k.changed.Broadcast()
	})
	defer stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	for w.seen == k.events {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.changed.Wait()
	}
	w.seen = k.events
	return nil
}

func (w *watch) Close() error { return nil }
