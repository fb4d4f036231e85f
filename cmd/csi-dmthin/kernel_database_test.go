package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

// A database ends when a neighbour has taken all of their pool, and loses nothing by it:
// once there is room it has each payment that a client was told of, and takes more. Room
// comes from the neighbour's end, or from a larger pool, which the server of CSI need not
// have seen run full.
func TestKernelServeDatabaseOnAFullPool(t *testing.T) {
	dmtest.RequireKernel(t)
	bank := foundBank(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			// The two volumes promise all that there may be, so a larger one makes the pool
			// larger, by an eighth of that.
			n := newNode(t, "default:loopdatasize=256M,loopmetadatasize=16M,min_free_space=0%,overprovision_ratio=8,grow-to=512M")
			d := openDatabase(n, fs, bank)

			neighbour := d.add("neighbour")
			d.runFull("neighbour")
			must(t, d.remove("neighbour", neighbour))
			d.comesBack()

			neighbour = d.add("neighbour")
			d.runFull("neighbour")
			d.kill()
			d.start()
			d.isFull()
			const larger = 2 * gib
			must(t, d.expand(d.id, larger))
			d.comesBack()
			must(t, d.larger("db", larger))
			must(t, d.remove("neighbour", neighbour))

			must(t, errors.Join(d.server.Check(), d.server.Stop()))
			must(t, d.remove("db", d.id))
			d.empty()
		})
	}
}

// foundBank makes the data of a bank, which are copied to volumes: that is quicker.
func foundBank(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bank-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o711))
	data := filepath.Join(dir, "data")
	must(t, postgres.Init(data))
	server, err := postgres.Start(data, filepath.Join(dir, "server"))
	must(t, err)
	must(t, errors.Join(server.Ready(), server.FoundBank(2), server.Stop()))
	return data
}

// A database is PostgreSQL on a volume of a node.
type database struct {
	*node
	*csi.VolumeCapability
	id           string
	server       *postgres.Server
	starts       int
	acknowledged int64 // payments that clients were told are done
}

// openDatabase makes a volume, puts a bank on it, and opens that.
func openDatabase(n *node, fs, bank string) *database {
	n.Helper()
	// PostgreSQL passes, as another user.
	must(n, errors.Join(os.Chmod(n.dir, 0o711), os.Chmod(n.path("kubelet"), 0o711)))
	d := &database{node: n, VolumeCapability: mountCapability(fs)}
	d.id = d.add("db")
	copied, err := exec.Command("cp", "--archive", bank, d.data()).CombinedOutput()
	if err != nil {
		n.Fatalf("cp: %v: %s", err, copied)
	}
	must(n, d.sync("db"))
	d.run()
	return d
}

func (d *database) data() string { return d.target("db") + "/data" }

// sync makes all that is on a volume durable: PostgreSQL does not know of what others
// have written.
func (d *database) sync(name string) error {
	f, err := os.Open(d.target(name))
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// show stages and publishes a volume.
func (d *database) show(name, id string) error {
	if err := d.stage(name, id, d.VolumeCapability); err != nil {
		return err
	}
	return d.publish(name, id, d.VolumeCapability)
}

// hide undoes it.
func (d *database) hide(name, id string) error {
	if err := d.unpublish(name, id); err != nil {
		return err
	}
	return d.unstage(name, id)
}

func (d *database) add(name string) string {
	d.Helper()
	id, err := d.create(name, d.VolumeCapability, gib, nil)
	must(d, err)
	must(d, d.show(name, id))
	return id
}

func (d *database) remove(name, id string) error {
	if err := d.hide(name, id); err != nil {
		return err
	}
	return d.delete(id)
}

// run starts PostgreSQL.
func (d *database) run() {
	d.Helper()
	d.starts++
	must(d, postgres.ForgetOwner(d.data()))
	server, err := postgres.Start(d.data(), d.path(fmt.Sprintf("server-%d", d.starts)))
	must(d, err)
	d.server = server
	d.Cleanup(func() {
		if d.Failed() {
			d.Log(server.LastWords(30))
		}
		must(d, server.Crash())
	})
	must(d, server.Ready())
}

// useUp has the server take the next file of its log, until it has none left that was
// made before.
var useUp = slices.Repeat([]string{"select pg_switch_wal()"}, 8)

// runFull lets clients pay while a neighbour takes all the room that the pool has, until
// they cannot.
func (d *database) runFull(neighbour string) {
	d.Helper()
	payers, err := d.server.OpenBank(200)
	must(d, err)
	must(d, payers.Begun())
	d.Logf("the neighbour heard: %v", d.fill(neighbour))
	d.isFull()
	_, _ = d.server.Query(useUp...) // which may be what the server ends at
	select {
	case <-payers.Ended():
	case <-time.After(time.Minute):
		d.Error("they pay on")
	}
	d.isFull()
	must(d, errors.Join(d.server.Crash(), payers.End(unix.SIGTERM)))
	paid, err := payers.Acknowledged()
	must(d, err)
	if paid == 0 {
		d.Error("nobody was told of a payment")
	}
	d.acknowledged += paid
}

// fill writes to a volume until that fails.
func (d *database) fill(name string) error {
	f, err := os.Create(d.target(name) + "/fill")
	must(d, err)
	for err == nil {
		if _, err = f.Write(make([]byte, 4*mib)); err == nil {
			err = f.Sync()
		}
	}
	return errors.Join(err, f.Close())
}

// isFull fails unless the pool says that it is, and refuses what it cannot do.
func (d *database) isFull() {
	d.Helper()
	if reason := d.reason(); reason != "PoolFull" {
		d.Errorf("the database's health is %q", reason)
	}
	if _, err := d.snapshot("s", d.id); status.Code(err) != codes.FailedPrecondition {
		d.Errorf("snapshot on a full pool: %v", err)
	}
	id, err := d.create("x", d.VolumeCapability, gib, nil)
	if err == nil {
		err = d.delete(id) // nothing of it was written
	} else if status.Code(err) == codes.ResourceExhausted {
		err = nil
	}
	must(d, err)
}

// reason is what is wrong with the database's volume.
func (d *database) reason() string {
	d.Helper()
	r, err := d.NodeGetVolumeHealth(d.ctx(), &csi.NodeGetVolumeHealthRequest{VolumeId: d.id})
	must(d, err)
	if all := r.GetVolumeHealth().GetHealthStatuses(); len(all) > 0 {
		return all[0].GetReason()
	}
	return ""
}

// comesBack mounts the volume anew and fails unless the bank is as it was left, and
// takes payments.
func (d *database) comesBack() {
	d.Helper()
	if reason := d.reason(); reason == "PoolFull" {
		d.Errorf("there is room, and the database's health is %s", reason)
	}
	must(d, d.hide("db", d.id))
	must(d, d.show("db", d.id))
	d.run()
	if !d.server.Recovered() {
		d.Error("there was nothing to recover")
	}
	const more = 10
	must(d, d.server.Pay(more))
	d.acknowledged += more * postgres.Clients
	books, err := d.server.Audit()
	must(d, err)
	must(d, books.Between(d.acknowledged, d.acknowledged))
	d.Logf("%d payments were acknowledged, and %d are there", d.acknowledged, books.Payments)
	d.acknowledged = books.Payments
}
