package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// An operation is one row of the table. Everything but do and dmsetup happens
// before or after the clock runs; i counts from 1.
type operation struct {
	name    string
	prepare func(i int) error
	do      func(i int) error
	dmsetup func(i int) [][]string // the commands that do the same; none for an operation of ours alone
	undo    func(i int) error
	serial  bool // makes no sense several times at once
	process bool // starts a process
}

// calibration tells what a process and a sync cost here.
func calibration(r *rig) []operation {
	file := filepath.Join(r.dir, "synced")
	return []operation{
		{name: "fork+exec of true", process: true, do: func(int) error { return exec.Command("/bin/true").Run() }},
		{name: "fdatasync of 4 KiB", do: func(i int) error {
			f, err := os.OpenFile(fmt.Sprint(file, i), os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			_, err = f.Write(make([]byte, 4096))
			return errors.Join(err, unix.Fdatasync(int(f.Fd())), f.Close())
		}},
	}
}

func operations(r *rig) []operation {
	return append(append(questions(r), devices(r)...), messages(r)...)
}

func name(i int) string { return fmt.Sprintf("bench-%d", i) }

func command(words ...string) func(int) [][]string {
	return func(int) [][]string { return [][]string{words} }
}

// questions change nothing.
func questions(r *rig) []operation {
	pool := r.pool.String()
	return []operation{
		{
			name: "version", dmsetup: command("version"),
			do: func(int) error { _, err := dm.GetVersion(r.kernel); return err },
		},
		{
			name: "list of targets", dmsetup: command("targets"),
			do: func(int) error { _, err := dm.Targets(r.kernel); return err },
		},
		{
			name: "list of devices", dmsetup: command("ls"),
			do: func(int) error { _, err := dm.List(r.kernel, "", ""); return err },
		},
		{
			name: "info", dmsetup: command("info", pool),
			do: func(int) error { _, err := r.pool.Info(); return err },
		},
		{
			name: "table", dmsetup: command("table", pool),
			do: func(int) error { _, err := r.pool.Table(); return err },
		},
		{
			name: "deps", dmsetup: command("deps", pool),
			do: func(int) error { _, err := r.pool.Deps(); return err },
		},
		{
			name: "status of the pool", dmsetup: command("status", "--noflush", pool),
			do: func(int) error { _, err := r.pool.PoolStatus(); return err },
		},
		{
			name: "status of a thin", dmsetup: command("status", "--noflush", r.volume.String()),
			do: func(int) error { _, err := r.volume.ThinStatus(); return err },
		},
		{
			name: "probe of an id",
			do:   func(int) error { _, err := r.pool.Has(0); return err },
		},
	}
}

// devices are the steps of activating and removing a thin.
func devices(r *rig) []operation {
	device := func(i int) dm.Device { return dm.ByName(r.kernel, name(i)) }
	table := func(i int) dm.Table { return r.thin(dm.DeviceID(i)) }
	line := func(i int) string { return strings.TrimSpace(table(i).String()) }
	makeThin := func(i int) error { return r.pool.CreateThin(dm.DeviceID(i)) }
	makeDevice := func(i int) error { _, err := dm.Create(r.kernel, name(i), ""); return errors.Join(makeThin(i), err) }
	load := func(i int) error { return errors.Join(makeDevice(i), device(i).Load(table(i))) }
	activate := func(i int) error { return errors.Join(load(i), device(i).Resume()) }
	suspend := func(i int) error { return errors.Join(activate(i), device(i).Suspend(0)) }
	remove := func(i int) error { return device(i).Remove() }
	deleteThin := func(i int) error { return r.pool.Delete(dm.DeviceID(i)) }
	clean := func(i int) error { return errors.Join(remove(i), deleteThin(i)) }
	return []operation{
		{
			name: "create device", undo: remove,
			do:      func(i int) error { _, err := dm.Create(r.kernel, name(i), ""); return err },
			dmsetup: func(i int) [][]string { return [][]string{{"create", "--notable", name(i)}} },
		},
		{
			name: "load table", prepare: makeDevice, undo: clean,
			do:      func(i int) error { return device(i).Load(table(i)) },
			dmsetup: func(i int) [][]string { return [][]string{{"load", name(i), "--table", line(i)}} },
		},
		{
			name: "clear table", prepare: load, undo: clean,
			do:      func(i int) error { return device(i).ClearInactive() },
			dmsetup: func(i int) [][]string { return [][]string{{"clear", name(i)}} },
		},
		{
			name: "resume with a new table", prepare: load, undo: clean,
			do:      func(i int) error { return device(i).Resume() },
			dmsetup: func(i int) [][]string { return [][]string{{"resume", name(i)}} },
		},
		{
			name: "suspend", prepare: activate, undo: clean,
			do:      func(i int) error { return device(i).Suspend(0) },
			dmsetup: func(i int) [][]string { return [][]string{{"suspend", name(i)}} },
		},
		{
			name: "resume", prepare: suspend, undo: clean,
			do:      func(i int) error { return device(i).Resume() },
			dmsetup: func(i int) [][]string { return [][]string{{"resume", name(i)}} },
		},
		{
			name: "rename", prepare: activate, undo: func(i int) error {
				return errors.Join(dm.ByName(r.kernel, name(i)+"-new").Remove(), deleteThin(i))
			},
			do:      func(i int) error { _, err := device(i).Rename(name(i) + "-new"); return err },
			dmsetup: func(i int) [][]string { return [][]string{{"rename", name(i), name(i) + "-new"}} },
		},
		{
			name: "remove", prepare: activate, undo: deleteThin,
			do:      remove,
			dmsetup: func(i int) [][]string { return [][]string{{"remove", name(i)}} },
		},
		{
			name: "activate: create, load, resume", prepare: makeThin, undo: clean,
			do:      func(i int) error { _, err := dm.Activate(r.kernel, name(i), "", table(i)); return err },
			dmsetup: func(i int) [][]string { return [][]string{{"create", name(i), "--table", line(i)}} },
		},
	}
}

// messages change the pool, and commit.
func messages(r *rig) []operation {
	pool := r.pool.String()
	say := func(format string) func(i int) [][]string {
		return func(i int) [][]string { return [][]string{{"message", pool, "0", fmt.Sprintf(format, i)}} }
	}
	makeThin := func(i int) error { return r.pool.CreateThin(dm.DeviceID(i)) }
	deleteThin := func(i int) error { return r.pool.Delete(dm.DeviceID(i)) }
	snap := func(i int) error { return r.pool.CreateSnap(dm.DeviceID(i), 0) }
	return []operation{
		{name: "create_thin", do: makeThin, undo: deleteThin, dmsetup: say("create_thin %d")},
		{name: "create_snap", do: snap, undo: deleteThin, dmsetup: say("create_snap %d 0")},
		{
			name: "create_snap of an active origin", undo: deleteThin, serial: true,
			do: func(i int) error { return r.volume.WhileSuspended(0, func() error { return snap(i) }) },
			dmsetup: func(i int) [][]string {
				return [][]string{{"suspend", r.volume.String()}, say("create_snap %d 0")(i)[0], {"resume", r.volume.String()}}
			},
		},
		{name: "delete", prepare: makeThin, do: deleteThin, dmsetup: say("delete %d")},
		{
			name: "set_transaction_id", serial: true,
			prepare: func(i int) error { return r.setTransactionID(uint64(i) - 1) },
			do:      func(i int) error { return r.pool.SetTransactionID(uint64(i)-1, uint64(i)) },
			dmsetup: func(i int) [][]string {
				return [][]string{{"message", pool, "0", fmt.Sprintf("set_transaction_id %d %d", i-1, i)}}
			},
		},
		{
			name: "reserve_metadata_snap", serial: true,
			do:      func(int) error { return r.pool.ReserveMetadataSnap() },
			dmsetup: command("message", pool, "0", "reserve_metadata_snap"),
			undo:    func(int) error { return r.pool.ReleaseMetadataSnap() },
		},
		{
			name: "release_metadata_snap", serial: true,
			prepare: func(int) error { return r.pool.ReserveMetadataSnap() },
			do:      func(int) error { return r.pool.ReleaseMetadataSnap() },
			dmsetup: command("message", pool, "0", "release_metadata_snap"),
		},
		{
			name: "commit: status that flushes", dmsetup: command("status", pool),
			do: func(int) error { _, err := r.pool.Commit(); return err },
		},
	}
}

func (r *rig) setTransactionID(id uint64) error {
	now, err := r.pool.TransactionID()
	if err != nil || now == id {
		return err
	}
	return r.pool.SetTransactionID(now, id)
}
