package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// origins are mounted devices that are written to, one for each that works at once.
type origins struct {
	rig      *setRig
	snapshot string // of the first one
	sizes    [parallel]int64
	mounted  int
}

func newOrigins(r *setRig) (*origins, error) {
	o := &origins{rig: r, snapshot: "origin-snapshot"}
	r.later(o.unmount)
	for i := range parallel {
		o.sizes[i] = baseSize
		err := r.set.CreateDevice(o.name(i), "", deviceset.DeviceOptions{FS: "ext4"})
		if err == nil {
			err = r.set.MountDevice(o.name(i), o.path(i), deviceset.MountOpts{})
		}
		if err != nil {
			return nil, err
		}
		o.mounted++
	}
	return o, r.set.CreateDevice(o.snapshot, o.name(0), deviceset.DeviceOptions{ReadOnly: true})
}

// unmount unmounts them all, once.
func (o *origins) unmount() (err error) {
	for ; o.mounted > 0; o.mounted-- {
		i := o.mounted - 1
		err = errors.Join(err, o.rig.set.UnmountDevice(o.name(i), o.path(i)))
	}
	return err
}

func (o *origins) name(i int) string { return fmt.Sprint("origin-", i%parallel) }

func (o *origins) path(i int) string { return o.rig.directory(o.name(i)) }

// grow makes an origin's device larger. Calls that run at once have different ones.
func (o *origins) grow(i int, by int64) error {
	o.sizes[i%parallel] += by
	return o.rig.set.GrowDevice(o.name(i), o.sizes[i%parallel])
}

// whileWritten calls run while each origin is written to by somebody.
func (o *origins) whileWritten(run func() error) error {
	stop := make(chan struct{})
	var writers sync.WaitGroup
	errs := make([]error, parallel)
	for i := range parallel {
		writers.Go(func() { errs[i] = o.write(i, stop) })
	}
	err := run()
	close(stop)
	writers.Wait()
	return errors.Join(err, errors.Join(errs...))
}

// write writes a page every few milliseconds until it is stopped.
func (o *origins) write(i int, stop <-chan struct{}) error {
	f, err := os.OpenFile(filepath.Join(o.path(i), "written"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	const pages = 1024
	page := make([]byte, 4096)
	beat := time.NewTicker(5 * time.Millisecond)
	defer beat.Stop()
	for at := int64(0); err == nil; at = (at + 1) % pages {
		select {
		case <-stop:
			return f.Close()
		case <-beat.C:
			_, err = f.WriteAt(page, at*int64(len(page)))
		}
	}
	return errors.Join(err, f.Close())
}
