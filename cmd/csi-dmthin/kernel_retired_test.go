package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// createIn is create for a pool that is named.
func (n *node) createIn(pool, name string, c *csi.VolumeCapability, size int64) (string, error) {
	r, err := n.CreateVolume(n.ctx(), &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{c}, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		Parameters: map[string]string{"csi-dmthin.dev/pool": pool},
	})
	return r.GetVolume().GetVolumeId(), err
}

func (n *node) capacityOf(pool string) int64 {
	n.Helper()
	r, err := n.GetCapacity(n.ctx(), &csi.GetCapacityRequest{Parameters: map[string]string{"csi-dmthin.dev/pool": pool}})
	must(n, err)
	return r.GetAvailableCapacity()
}

// shown returns a volume that is published, with something in it.
func (n *node) shown(pool, name string) string {
	n.Helper()
	c := mountCapability("ext4")
	id, err := n.createIn(pool, name, c, 64*mib)
	must(n, err)
	must(n, errors.Join(n.stage(name, id, c), n.publish(name, id, c), n.write(name, 1)))
	return id
}

func (n *node) gone(name, id string) {
	n.Helper()
	must(n, errors.Join(n.unpublish(name, id), n.unstage(name, id), n.delete(id)))
}

// A pool that is taken out of the configuration while it is in use serves what it has,
// takes no new volumes, and is left on disk when it has none.
func TestKernelRetiredPool(t *testing.T) {
	for _, how := range []string{"by its options", "by its journal", "after a stop"} {
		t.Run(how, func(t *testing.T) {
			k := dmtest.RequireKernel(t)
			const small = "default:loopdatasize=128M,loopmetadatasize=16M"
			n := newNode(t, small, "old:loopdatasize=128M,loopmetadatasize=16M,preallocate=true,grow-to=160M")
			id := n.shown("old", "a")
			root := n.path("state/pools/old")
			if how == "by its journal" {
				must(t, os.Remove(filepath.Join(root, memoryFile)))
			}
			if how == "after a stop" {
				n.stop()
			} else {
				n.kill()
			}
			n.pools = []string{small}
			n.start()

			must(t, n.reads("a", 1))
			n.says("status", "pool old: rw", "retired", "takes no new volumes", "for no new volume")
			n.says("check", "pool old: in order")
			if room := n.capacityOf("old"); room != 0 {
				t.Errorf("%d bytes of capacity", room)
			}
			_, err := n.createIn("old", "b", mountCapability("ext4"), mib)
			n.refused(err, codes.ResourceExhausted)
			s, err := n.snapshot("s", id)
			must(t, err)
			_, err = n.create("c", mountCapability("ext4"), 64*mib, ofSnapshot(s))
			n.refused(err, codes.FailedPrecondition)
			must(t, n.expand(id, 96*mib))
			must(t, n.expandNode("a", id, 96*mib))
			if how == "by its options" {
				must(t, n.expand(id, 144*mib)) // for which the pool grows
			}
			must(t, n.write("a", 2))
			must(t, n.unpublish("a", id))
			must(t, n.unstage("a", id))
			c := mountCapability("ext4")
			must(t, errors.Join(n.stage("a", id, c), n.publish("a", id, c), n.reads("a", 2)))
			_, err = n.DeleteSnapshot(n.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: s})
			must(t, err)
			n.gone("a", id)

			n.stop()
			n.start()
			must(t, n.delete(id)) // again, for whoever did not hear of it
			n.says("status", "pool old: not open", "has no volumes", root)
			n.says("check", "pool old: in order")
			n.empty()
			devices, err := dm.List(k, "", deviceset.UUIDPrefix)
			must(t, err)
			for _, d := range devices {
				if !strings.HasPrefix(d.UUID, n.uuidOf(k)) {
					t.Errorf("left behind: %v", d)
				}
			}
			if _, err := os.Stat(filepath.Join(root, "devicemapper", "data")); err != nil {
				t.Error(err)
			}
		})
	}
}

// disks returns paths of new disks, which last until the test ends.
func (n *node) disks(sizes ...int64) (paths []string) {
	n.Helper()
	m := dmtest.NewMachine(dmtest.RequireKernel(n), n.dir)
	for _, size := range sizes {
		d, err := m.NewDisk(dm.SectorsIn(size))
		must(n, err)
		n.Cleanup(func() { must(n, d.Close()) })
		link, err := os.Readlink("/sys/dev/block/" + d.Dev().String())
		must(n, err)
		paths = append(paths, "/dev/"+filepath.Base(link))
	}
	return paths
}

// Whoever has tried a pool on files, and then names disks for the pool of that name, has
// both.
func TestKernelPoolMakesRoom(t *testing.T) {
	k := dmtest.RequireKernel(t)
	n := newNode(t, "default:loopdatasize=512M,loopmetadatasize=16M")
	first := n.shown("default", "a")
	uuid := n.uuidOf(k)
	n.kill()
	paths := n.disks(512*mib, 16*mib)
	n.pools = []string{fmt.Sprintf("default:datadev=%s,metadatadev=%s", paths[0], paths[1])}
	for range 2 {
		n.start()
		must(t, n.reads("a", 1))
		second := n.shown("default", "b")
		if key, _, _ := strings.Cut(first, "/"); strings.HasPrefix(second, key) {
			t.Errorf("%s and %s are in one pool", first, second)
		}
		aside := "default." + strings.TrimPrefix(uuid, deviceset.UUIDPrefix)[:8]
		n.says("status", "pool default: rw", paths[0], "pool "+aside+": rw", "retired", n.path("state/pools/"+aside))
		n.gone("b", second)
		n.kill()
	}
	n.start()
	n.gone("a", first)
	n.empty()
	n.stop()
}

// The path of a disk may be a pattern, of which one device is found when the pool is
// opened.
func TestKernelDiskPatterns(t *testing.T) {
	n := newNode(t, "default:loopdatasize=128M,loopmetadatasize=16M")
	n.stop()
	paths := n.disks(512*mib, 16*mib, 16*mib)
	must(t, os.Mkdir(n.path("by-id"), 0o700))
	link := func(disk int, name string) { must(t, os.Symlink(paths[disk], n.path("by-id/"+name))) }
	n.pools = []string{fmt.Sprintf("late:datadev=%s,metadatadev=%s", n.path("by-id/nvme-*-data"), n.path("by-id/nvme-*-meta"))}
	n.launch()
	waitFor := func(words ...string) {
		t.Helper()
		comesTrue(t, strings.Join(words, ", "), func() bool {
			out, err := program(t, "status", "--admin-socket", n.path("admin.sock"))
			for _, word := range words {
				if err != nil || !strings.Contains(out, word) {
					return false
				}
			}
			return true
		})
	}
	waitFor("pool late: not open", "no block device matches "+n.path("by-id/nvme-*-data"))
	link(1, "nvme-1-data") // the wrong one
	waitFor("metadatadev: no block device")
	link(1, "nvme-1-meta")
	waitFor("one device")
	must(t, os.Remove(n.path("by-id/nvme-1-data")))
	link(0, "nvme-1-data")
	link(0, "nvme-eui.1-data") // another path of the same
	n.waitForPools()
	n.says("status", n.path("by-id/nvme-1-data"))
	id := n.shown("late", "a")
	n.gone("a", id)
	n.stop()

	link(2, "nvme-2-meta")
	n.launch()
	waitFor("pool late: not open", "matches 2 devices", "nvme-1-meta", "nvme-2-meta")
	n.stop()
}

// comesTrue waits for what the server does by itself.
func comesTrue(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
