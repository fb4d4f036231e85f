package main

import (
	"os"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// says runs a command against the node's agent, shows what it prints, and fails unless it
// prints all of that. An exit status of 1 is part of what is printed.
func (n *node) says(args string, words ...string) {
	n.Helper()
	out, err := program(n, append(strings.Fields(args), "--admin-socket", n.path("admin.sock"))...)
	if err != nil {
		out += "csi-dmthin: " + oneLine(err) + "\n"
	}
	n.Logf("$ csi-dmthin %s\n%s", args, out)
	for _, want := range words {
		if !strings.Contains(out, want) {
			n.Errorf("%s: no %q", args, want)
		}
	}
}

// uuidOf returns the UUID of the pool of which a device is.
func (n *node) uuidOf(k dm.Kernel) string {
	devices, err := dm.List(k, "", deviceset.UUIDPrefix)
	must(n, err)
	for _, d := range devices {
		if uuid, ok := strings.CutSuffix(d.UUID, "-pool"); ok {
			return uuid
		}
	}
	n.Fatal("no pool is active")
	return ""
}

func TestKernelCommands(t *testing.T) {
	k := dmtest.RequireKernel(t)
	n := newNode(t, "default:loopdatasize=1G,loopmetadatasize=16M,min_free_space=5%,overprovision_ratio=4,grow-to=3G")
	c := mountCapability("ext4")
	data, err := n.create("pvc-data", c, 512*mib, nil)
	must(t, err)
	must(t, n.stage("data", data, c))
	must(t, n.publish("data", data, c))
	must(t, n.write("data", 1))
	nightly, err := n.snapshot("nightly", data)
	must(t, err)
	test, err := n.create("pvc-test", c, 512*mib, ofSnapshot(nightly))
	must(t, err)
	raw, err := n.create("pvc-raw", blockCapability(), 256*mib, nil)
	must(t, err)

	n.says("status", "pool default: rw", "1.3 GiB of 4 GiB (overprovision_ratio=4)", "3 GiB, when a volume expands", "devices       4")
	n.says("volumes", "pvc-data", "pvc-test", "s-nightly", "block")
	n.says("snapshots -o wide", nightly)
	n.says("volumes --tree", "├─ pvc-data", "│  └─ nightly", "│     └─ pvc-test", "└─ pvc-raw")
	n.says("check", "pool default: in order\n")
	n.says("pool grow default 2G", "has had 1 GiB of data and now has 2 GiB")
	n.says("pool grow default 1G", "cannot be smaller")
	n.says("log-level 4", "log level 4")
	n.says("log-level 0", "log level 0")
	n.says("volumes -o json")

	uuid := n.uuidOf(k)
	volume := dm.ByUUID(k, uuid+"-1")
	must(t, volume.Suspend(0))
	n.says("check", "1 finding", "suspended", "(v-pvc-data)")
	must(t, volume.Resume())
	n.says("check", "in order")

	pool := dm.Pool{Device: dm.ByUUID(k, uuid+"-pool")}
	must(t, pool.CreateThin(7777))
	n.stop()
	n.start()
	n.says("check", "1 finding", "orphan", "thin device 7777")
	n.says("adopt default", "4 kept, 1 quarantined, 0 lost. Nothing was changed")
	n.says("adopt default --yes", "4 kept, 1 quarantined, 0 lost.\n")
	must(t, n.reads("data", 1)) // it was mounted all the time
	must(t, n.write("data", 2))
	n.says("check", "quarantined")
	n.says("adopt default --device 7777 --name v-found --size 64M", "thin device 7777 is v-found now, of 64 MiB: volume")
	n.says("check", "in order")
	n.says("volumes", "found")

	n.stop()
	n.says("status", "no agent listens there")
	for _, file := range []string{"state.0", "state.1"} {
		must(t, os.Remove(n.path("state/pools/default/"+file)))
	}
	flags := " --state-dir " + n.path("state") + " --pools " + n.pools[0]
	n.says("adopt default"+flags, "no agent listens at", "as the label's copy", "5 kept, 0 quarantined, 0 lost. Nothing was changed")
	n.says("adopt default --yes"+flags, "5 kept, 0 quarantined, 0 lost.\n")
	must(t, n.reads("data", 2))
	n.start()
	n.says("check", "in order")

	must(t, n.unpublish("data", data))
	must(t, n.unstage("data", data))
	for _, id := range []string{data, test, raw, strings.Replace(raw, "pvc-raw", "found", 1)} {
		must(t, n.delete(id))
	}
	n.says("snapshots --tree", "└─ v-pvc-data (gone)", "   └─ nightly")
}
