package main

import (
	"context"
	"errors"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// A part is something that is noted while an operation runs.
type part struct {
	name string
	take func() times // since the last take, sorted
}

// A verb is an operation of the DeviceSet, and a row of its table.
type verb struct {
	operation
	times int // how often it is measured, if not as often as asked
	while func(run func() error) error
	parts []part
}

// verbs are those of a set with file systems.
func (r *setRig) verbs(o *origins) []verb {
	blank := func(i int) error { return r.blank(name(i), volumeSize) }
	remove := func(i int) error { return r.remove(name(i)) }
	copyOf := func(source string, readOnly bool) func(int) error {
		return func(i int) error {
			return r.set.CreateDevice(name(i), source, deviceset.DeviceOptions{ReadOnly: readOnly})
		}
	}
	formatted := func(i int) error {
		return r.set.CreateDevice(name(i), "", deviceset.DeviceOptions{FS: "ext4"})
	}
	mount := func(i int) error {
		return r.set.MountDevice(name(i), r.directory(name(i)), deviceset.MountOpts{})
	}
	unmount := func(i int) error { return r.set.UnmountDevice(name(i), r.directory(name(i))) }
	return []verb{
		{operation: operation{name: "create", do: blank, undo: remove}},
		{
			operation: operation{
				name: "snapshot of a mounted ext4", undo: remove,
				do: func(i int) error { return copyOf(o.name(i), true)(i) },
			},
			while: o.whileWritten,
			parts: []part{
				{"its writers stood, suspend included", r.machine.stood.take},
				{"its device was suspended", r.machine.still.take},
			},
		},
		{operation: operation{name: "clone of a snapshot", do: copyOf(o.snapshot, false), undo: remove}},
		{operation: operation{name: "delete, nothing mapped", prepare: blank, do: remove}},
		{
			operation: operation{name: "expand a mounted ext4", do: func(i int) error {
				return errors.Join(
					o.grow(i, 64*mib),
					r.set.GrowFilesystem(context.Background(), o.name(i)),
				)
			}},
			times: fewTimes / 2,
		},
		{operation: operation{name: "expand its device alone", do: func(i int) error { return o.grow(i, mib/8) }}},
		{
			operation: operation{
				name: "mount an ext4", do: mount, prepare: formatted,
				undo: func(i int) error { return errors.Join(unmount(i), remove(i)) },
			},
			times: fewTimes,
		},
		{
			operation: operation{
				name: "unmount it", do: unmount, undo: remove,
				prepare: func(i int) error { return errors.Join(formatted(i), mount(i)) },
			},
			times: fewTimes,
		},
	}
}

// fewTimes is how often that is measured which waits for the kernel's grace
// periods or starts a process.
const fewTimes = 32

// deletes are those of devices that hold something, on a disk that forgets it.
func (r *setRig) deletes(n *neighbour) []verb {
	mapped := func(label string, size, piece int64, times int) verb {
		return verb{
			operation: operation{
				name: label, serial: true,
				prepare: func(i int) error {
					return errors.Join(r.blank(name(i), size), r.fill(name(i), size, piece), n.start())
				},
				do:   func(i int) error { return r.remove(name(i)) },
				undo: func(int) error { return n.stop() },
			},
			times: times,
			parts: []part{{"a neighbour's worst write meanwhile", n.take}},
		}
	}
	return []verb{
		mapped("delete, 1 GiB mapped", gib, gib, 8),
		mapped("delete, 8 GiB mapped in random order", 8*gib, mib/8, 2),
		mapped("delete, 64 GiB mapped", 64*gib, gib, 2),
	}
}
