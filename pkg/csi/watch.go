package csi

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// Watch opens the pools and keeps them open, logs their events, and measures every so
// often what each volume has of its pool alone, until ctx ends.
func (d *Driver) Watch(ctx context.Context, interval time.Duration) {
	var all sync.WaitGroup
	for _, p := range d.pools {
		all.Go(func() { p.keepOpen(ctx) })
		all.Go(func() { p.watch(ctx) })
		if interval > 0 {
			all.Go(func() { p.measure(ctx, interval) })
		}
	}
	all.Wait()
}

// keepOpen opens the pool, and again after it was closed for somebody who could not open
// it again, or when its journal could not be written.
func (p *Pool) keepOpen(ctx context.Context) {
	for ctx.Err() == nil {
		p.openPatiently(ctx)
		if layers, err := p.Layers(); err == nil && layers.Poisoned() != nil {
			klog.FromContext(ctx).Error(layers.Poisoned(), "The pool is opened anew", "pool", p.Name)
			if err := p.While(func() error { return nil }); err != nil {
				klog.FromContext(ctx).Error(err, "The pool could not be opened anew", "pool", p.Name)
			}
			sleep(ctx, afterPoison)
		}
		sleep(ctx, firstRetry)
	}
}

// afterPoison keeps a disk that fails all the time from being tried all the time.
const afterPoison = 10 * time.Second

// watch logs events. The channel ends with the pool, which may be opened anew.
func (p *Pool) watch(ctx context.Context) {
	log := klog.FromContext(ctx).WithValues("pool", p.Name)
	for ctx.Err() == nil {
		if layers, err := p.Layers(); err == nil {
			logEvents(ctx, log, layers)
		}
		sleep(ctx, firstRetry)
	}
}

func logEvents(ctx context.Context, log klog.Logger, layers *graphdriver.Driver) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-layers.Events():
			if !ok {
				return
			}
			if e.Err != nil {
				log.Error(e.Err, "The pool has news", "event", e.Kind, "status", e.Status.String())
			} else {
				log.Info("The pool has news", "event", e.Kind, "status", e.Status.String())
			}
		}
	}
}

func (p *Pool) measure(ctx context.Context, interval time.Duration) {
	for ctx.Err() == nil {
		layers, err := p.Layers()
		if err != nil {
			sleep(ctx, firstRetry)
			continue
		}
		if err := layers.MeasureExclusive(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("What volumes have alone could not be measured", "pool", p.Name, "err", err)
		}
		sleep(ctx, interval)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
