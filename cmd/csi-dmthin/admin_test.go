package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// An agent is a driver on a simulated machine that operators can ask.
type agent struct {
	testing.TB
	world  *csitest.World
	driver *csi.Driver
	socket string
}

// simulatedMachine is a process of the world that only the admin is.
type simulatedMachine struct{ *simulated.Machine }

func (simulatedMachine) Close() error { return nil }

// newAgent starts an agent whose pools are not open yet.
func newAgent(t testing.TB, pools ...string) *agent {
	t.Helper()
	w := csitest.NewWorld(t.TempDir())
	for _, pool := range pools {
		w.AddPool(pool, 8<<30)
	}
	dir, err := os.MkdirTemp("", "a") // a socket's path must be short
	must0(t, err)
	a := &agent{t, w, w.Driver(), filepath.Join(dir, "admin.sock")}
	l, err := csi.Listen(t.Context(), "unix://"+a.socket)
	must0(t, err)
	server := &http.Server{Handler: a.admin().routes(), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { must0(t, errors.Join(server.Close(), a.driver.Close(), os.RemoveAll(dir))) })
	return a
}

// admin returns what serves an agent, with the configuration that its driver has.
func (a *agent) admin() *admin {
	var c config
	for _, pool := range a.world.Pools {
		must0(a, c.Pools.Set(pool+":datadev="+csitest.DataDisk(pool)+",metadatadev="+csitest.MetadataDisk(pool)))
	}
	served := newAdmin(&c, a.driver.Pools)
	served.root, served.pause = csitest.Root, time.Millisecond
	served.open = func() (machine, error) { return simulatedMachine{a.world.Process(nil)}, nil }
	return served
}

// run runs a command against the agent.
func (a *agent) run(args ...string) (string, error) {
	a.Helper()
	return program(a, append(args, "--admin-socket", a.socket)...)
}

func program(t testing.TB, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(context.Background())
	return out.String(), err
}

// prints fails unless the command prints all of that.
func (a *agent) prints(args string, says ...string) {
	a.Helper()
	out, err := a.run(strings.Fields(args)...)
	must0(a, err)
	for _, words := range says {
		if !strings.Contains(out, words) {
			a.Errorf("%s prints\n%s\nand not %q", args, out, words)
		}
	}
}

// fails fails unless the command does, and says all of that.
func (a *agent) fails(args string, says ...string) {
	a.Helper()
	out, err := a.run(strings.Fields(args)...)
	if err == nil {
		a.Fatalf("%s does not fail, and prints\n%s", args, out)
	}
	for _, words := range says {
		if !strings.Contains(out+oneLine(err), words) {
			a.Errorf("%s prints\n%sand fails with %q, and not %q", args, out, oneLine(err), words)
		}
	}
}

// get returns what a command prints as JSON.
func get[T any](a *agent, args string) (value T) {
	a.Helper()
	out, _ := a.run(append(strings.Fields(args), "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &value); err != nil {
		a.Fatalf("%s prints %q: %v", args, out, err)
	}
	return value
}

func (a *agent) open() { a.driver.Open(a.Context()) }

// volume makes a volume, perhaps from a snapshot.
func (a *agent) volume(name, snapshot string) string {
	a.Helper()
	r := &spec.CreateVolumeRequest{
		Name: name, CapacityRange: &spec.CapacityRange{RequiredBytes: 1 << 30},
		VolumeCapabilities: []*spec.VolumeCapability{{
			AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: "ext4"}},
			AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	}
	if snapshot != "" {
		r.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{
			Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
		}}
	}
	v, err := a.driver.CreateVolume(a.Context(), r)
	must0(a, err)
	return v.GetVolume().GetVolumeId()
}

func (a *agent) snapshot(name, volume string) string {
	a.Helper()
	s, err := a.driver.CreateSnapshot(a.Context(), &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	must0(a, err)
	return s.GetSnapshot().GetSnapshotId()
}

// kernel returns the pool as the kernel has it, to do things behind the agent's back.
func (a *agent) kernel(pool int) dm.Pool {
	a.Helper()
	layers, err := a.driver.Pools[pool].Layers()
	must0(a, err)
	return dm.Pool{Device: dm.ByUUID(a.world.Kernel(), deviceset.UUIDPrefix+layers.PoolUUID()+"-pool")}
}

// restart opens the pools anew, as a start of the agent does.
func (a *agent) restart() {
	a.Helper()
	for _, p := range a.driver.Pools {
		must0(a, p.While(func() error { return nil }))
	}
}

// The socket answers before pools are open, and says so.
func TestAdminBeforePoolsAreOpen(t *testing.T) {
	a := newAgent(t)
	a.prints("status", "pool default: not open", "it was not opened yet")
	a.fails("check", "pool default: 1 finding", "not-open", "it was not opened yet", "check: pool default has 1 finding")
	a.fails("volumes", "pool default is not listed: it was not opened yet")
	a.fails("pool grow default 1G", "pool default is not open: it was not opened yet")
	a.fails("adopt default --device 7 --name x", "pool default is not open")
	a.open()
	a.prints("status", "pool default: rw")
	a.prints("check", "pool default: in order")
}

// It also answers while a pool is being opened.
func TestAdminWhileAPoolIsOpened(t *testing.T) {
	a := newAgent(t)
	began, end := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(end) })
	defer goOn()
	p, open := a.driver.Pools[0], a.driver.Pools[0].Open
	p.Open = func() (*graphdriver.Driver, error) {
		close(began)
		<-end
		return open()
	}
	opened := make(chan error, 1)
	go func() { opened <- p.TryOpen() }()
	<-began
	a.prints("status", "pool default: not open", "it was not opened yet")
	goOn()
	must0(t, <-opened)
	a.prints("status", "pool default: rw")
}

func TestAdminStatus(t *testing.T) {
	a := newAgent(t, "fast")
	a.open()
	a.volume("pvc-1", "")
	pools := get[[]poolStatus](a, "status")
	if len(pools) != 2 || pools[0].Pool != "default" || pools[1].Pool != "fast" {
		t.Fatalf("pools %+v", pools)
	}
	p := pools[0]
	if p.Mode != "rw" || p.Devices != 1 || p.Data.Total != csitest.DataSize || p.Data.Percent != 10 ||
		p.Promised.Bytes != 1<<30 || p.Promised.Limit != csitest.DataSize || p.Room <= 0 || p.UUID == "" || p.Key != a.driver.Pools[0].Key() {
		t.Errorf("status %+v, data %+v, promised %+v", p, p.Data, p.Promised)
	}
	a.prints("status --pool fast", "pool fast: rw\n", "devices       0\n")
	a.fails("status --pool slow", `the agent has no pool "slow": it has default, fast`)
}

func TestAdminDevices(t *testing.T) {
	a := newAgent(t, "fast")
	a.open()
	v := a.volume("pvc-1", "")
	s := a.snapshot("nightly", v)
	a.volume("pvc-2", s)
	a.volume("A name with blanks", "")
	a.prints("volumes", "pvc-1", "pvc-2", "A name with blanks", "v-pvc-1", "ext4 (blank)", "1 GiB")
	a.prints("volumes -o wide", v, "csi-dmthin-")
	a.prints("snapshots", "nightly", "s-nightly", "v-pvc-1")
	a.prints("volumes --tree", "├─ A name with blanks", "└─ pvc-1", "   └─ nightly", "      └─ pvc-2")
	volumes := get[deviceList](a, "volumes").Devices
	snapshots := get[deviceList](a, "snapshots").Devices
	if len(volumes) != 3 || len(snapshots) != 1 {
		t.Fatalf("volumes %+v, snapshots %+v", volumes, snapshots)
	}
	if d := snapshots[0]; d.ID != s || d.Kind != "snapshot" || d.Name != "nightly" || d.Source != "v-pvc-1" || d.SourceGone || d.Size != 1<<30 || *d.Used != 0 {
		t.Errorf("snapshot %+v", d)
	}
	if none := get[deviceList](a, "volumes --pool fast"); none.Devices == nil || len(none.Devices) != 0 {
		t.Errorf("pool fast has %+v", none)
	}
	if _, err := a.driver.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: v}); err != nil {
		t.Fatal(err)
	}
	a.prints("snapshots --tree", "└─ v-pvc-1 (gone)", "   └─ nightly")
	a.volume("pvc-1", s) // it has the name of its ancestor
	a.prints("snapshots --tree", "└─ v-pvc-1 (gone)", "   └─ nightly", "      ├─ pvc-1", "      └─ pvc-2")
	a.fails("volumes -o yaml", "want text, wide or json")
}

func TestAdminGrow(t *testing.T) {
	a := newAgent(t)
	a.open()
	a.fails("pool grow default 1G", "cannot be smaller")
	a.fails("pool grow default 128G", "resize pool")
	a.world.DiskAt(csitest.DataDisk("default")).Grow(dm.SectorsIn(128 << 30))
	a.prints("pool grow default 128G", "pool default has had 64 GiB of data and now has 128 GiB")
	a.prints("pool grow default 128G", "pool default has 128 GiB of data, as before")
	if g := get[growth](a, "pool grow default 128G"); g.Status.Data.Total != 128<<30 {
		t.Errorf("growth %+v", g)
	}
	a.fails("pool grow slow 1G", `no pool "slow"`)
	a.fails("pool grow a/b 1G", `no pool "a/b"`)
	a.fails("pool grow default big", `size "big": want a size`)
	a.fails("pool grow default", "accepts 2 arg(s)")
	_, err := program(t, "pool", "shrink", "default")
	refused(t, err, `unknown command "shrink" for "csi-dmthin pool": want grow`)
}

func TestAdminCheck(t *testing.T) {
	a := newAgent(t, "fast")
	a.open()
	v := a.volume("pvc-1", "")
	a.volume("pvc-2", "")
	a.prints("check", "pool default: in order\npool fast: in order\n")

	layers, err := a.driver.Pools[0].Layers()
	must0(t, err)
	_, err = layers.ActivateDevice("v-pvc-1")
	must0(t, err)
	a.prints("check", "pool default: in order")
	record, err := layers.Device("v-pvc-1")
	must0(t, err)
	name := layers.DMName(record.ID)
	device := dm.ByName(a.world.Kernel(), name)
	must0(t, device.Suspend(0))
	a.fails("check --pool default", "1 finding", "suspended", name+" (v-pvc-1): it is suspended")
	a.prints("check --pool fast", "pool fast: in order")
	must0(t, device.Resume())

	table, err := device.Table()
	must0(t, err)
	table[0].Length -= 128
	must0(t, device.Load(table))
	a.fails("check", "1 finding", "inactive-table", "dmsetup clear "+name)
	must0(t, device.Resume())
	a.fails("check", "1 finding", "table-size", "its table has 1073676288 bytes, and its record 1073741824")
	must0(t, device.Suspend(0))
	table[0].Length += 128
	must0(t, device.Load(table))
	must0(t, device.Resume())
	a.prints("check", "pool default: in order")
	must0(t, layers.DeactivateDevice("v-pvc-1"))

	if _, err := dm.Create(a.world.Kernel(), "stray", deviceset.UUIDPrefix+layers.PoolUUID()+"-99"); err != nil {
		t.Fatal(err)
	}
	a.fails("check", "1 finding", "no-table", "stray: it has no table")
	must0(t, dm.ByName(a.world.Kernel(), "stray").Remove())

	d, err := layers.Device("v-pvc-2")
	must0(t, err)
	pool := a.kernel(0)
	must0(t, errors.Join(pool.CreateThin(7777), pool.Delete(d.ID)))
	a.restart()
	a.fails("check", "2 findings", "ghost", "v-pvc-2: it is on record, and the pool has lost it", "orphan", "thin device 7777", "adopt default --device 7777 --name NAME")
	a.prints("status", "ghosts        v-pvc-2", "orphans       thin devices 7777")
	a.prints("volumes", "v-pvc-2: the pool has lost the device")
	checks := get[[]poolCheck](a, "check")
	if len(checks) != 2 || len(checks[0].Findings) != 2 || checks[1].Findings == nil || len(checks[1].Findings) != 0 {
		t.Errorf("checks %+v", checks)
	}

	a.prints("adopt default --device 7777 --name v-found --size 2G", "thin device 7777 is v-found now, of 2 GiB: volume "+a.driver.Pools[0].Key()+".v-found")
	a.fails("adopt default --device 7777 --name v-again", "has a name")
	_, err = a.driver.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: strings.Replace(v, "pvc-1", "pvc-2", 1)})
	must0(t, err)
	a.prints("check", "pool default: in order")
	a.prints("volumes", "found", "v-found")
}

// A change that is on its way is no finding, and one that stopped halfway is.
func TestCheckPasses(t *testing.T) {
	orphan, open, held := finding{Kind: isOrphan}, finding{Kind: isOpenOperation, passes: true}, finding{Kind: isSuspended, Object: "a", passes: true}
	other := finding{Kind: isSuspended, Object: "b", passes: true}
	before := poolCheck{"p", []finding{orphan, open, held}}
	if !before.mayPass() || (poolCheck{"p", []finding{orphan}}).mayPass() {
		t.Error("what may pass is not told from what may not")
	}
	got := before.both(poolCheck{"p", []finding{orphan, held, other}})
	if len(got.Findings) != 2 || got.Findings[0].Kind != isOrphan || got.Findings[1].Object != "a" {
		t.Errorf("findings %+v", got.Findings)
	}
}

// A pool whose root is lost is adopted by the agent, which could not open it.
func TestAdminAdopt(t *testing.T) {
	a := newAgent(t)
	a.open()
	a.snapshot("nightly", a.volume("pvc-1", ""))
	a.prints("adopt default", "would be adopted as the root's copy of the journal has it", "v-pvc-1", "s-nightly", "2 kept, 0 quarantined, 0 lost. Nothing was changed")
	a.prints("check", "pool default: in order")
	must0(t, a.kernel(0).CreateThin(7777))
	err := a.driver.Pools[0].While(func() error {
		a.world.RemoveRoot(csitest.Root("default"))
		return nil
	})
	refused(t, err, deviceset.ErrForeign.Error())
	a.prints("status", "pool default: not open", "adopt that pool")

	shown, err := a.run("adopt", "default")
	refused(t, err, "the agent could not open the pool afterwards", "adopt that pool")
	for _, words := range []string{"would be adopted as the label's copy", "2 kept, 1 quarantined, 0 lost. Nothing was changed"} {
		if !strings.Contains(shown, words) {
			t.Errorf("shown\n%s", shown)
		}
	}
	a.prints("adopt default --yes", "was adopted as the label's copy", "7777", "no record of it", "2 kept, 1 quarantined, 0 lost.\n")
	a.prints("status", "pool default: rw", "quarantined   thin devices 7777")
	a.prints("volumes", "pvc-1")
	a.prints("adopt default --device 7777 --name found", "thin device 7777 is found now", "and no volume to the orchestrator")
	a.prints("volumes --tree", "└─ pvc-1", "├─ found", "other")
}

func TestAdminAdoptRefuses(t *testing.T) {
	a := newAgent(t)
	a.open()
	for args, says := range map[string]string{
		"adopt":                                        "accepts 1 arg(s)",
		"adopt slow":                                   `the agent has no pool "slow": it has default`,
		"adopt default --name x":                       "--name and --size are about a --device",
		"adopt default --device 7":                     "--device needs a --name",
		"adopt default --device x --name y":            `--device "x": want a number from 1 to 16777215`,
		"adopt default --device 0 --name y":            `--device "0": want a number`,
		"adopt default --device 16777216 --name y":     "want a number",
		"adopt default --device 7 --name y --size big": `--size "big": want a size`,
		"adopt default --device 7 --name y --yes":      "--device and --yes",
		"adopt default --device 7 --name y":            "the pool has no thin device 7",
		"adopt default --device 7 --name ../y":         "name",
		"adopt default --pools default:fs=xfs":         "goes by its own configuration: leave --pools and --state-dir away",
		"adopt default --state-dir /srv":               "goes by its own configuration",
		"adopt default --pools default:colour=red":     `"dm.colour": unknown`,
	} {
		a.fails(args, says)
	}
	a.prints("check", "pool default: in order")
}

// Without an agent, the command does it.
func TestAdoptWithoutAgent(t *testing.T) {
	a := newAgent(t)
	a.open()
	a.volume("pvc-1", "")
	must0(t, a.kernel(0).CreateThin(7777))
	must0(t, a.driver.Close())
	served := a.admin()
	shown, err := served.adoptClosed("default", false)
	must0(t, err)
	if shown.Done || len(shown.Devices) != 2 || shown.Devices[0].Name != "v-pvc-1" || shown.Devices[1].Becomes != becomesQuarantined {
		t.Errorf("shown %+v", shown)
	}
	d, err := served.adoptDeviceClosed("default", deviceAdoption{ID: 7777, Name: "v-found"})
	must0(t, err)
	if d.ID == "" || d.Device != "v-found" || d.ThinID != 7777 {
		t.Errorf("device %+v", d)
	}
	done, err := served.adoptClosed("default", true)
	must0(t, err)
	if !done.Done || len(done.Devices) != 2 || done.Devices[1].Becomes != becomesKept {
		t.Errorf("done %+v", done)
	}
	_, err = served.adoptClosed("slow", false)
	refused(t, err, `no pool "slow" is configured: the configuration has default`)
	a.world.RemoveRoot(csitest.Root("default"))
	_, err = served.adoptDeviceClosed("default", deviceAdoption{ID: 7777, Name: "v-x"})
	refused(t, err, deviceset.ErrNoPool.Error()) // and none was made
}

func TestNoAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "no.sock")
	for _, args := range []string{"status", "volumes", "snapshots", "check", "pool grow default 1G", "log-level"} {
		_, err := program(t, append(strings.Fields(args), "--admin-socket", socket)...)
		refused(t, err, socket, "no agent listens there", "csi-dmthin serve", "--admin-socket")
	}
	l, err := net.Listen("unix", socket) // one that has died
	must0(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must0(t, l.Close())
	_, err = program(t, "status", "--admin-socket", socket)
	refused(t, err, "no agent listens there")
	_, err = program(t, "stauts")
	refused(t, err, `unknown command "stauts"`)
	_, err = program(t, "status", "--colour")
	refused(t, err, "--colour")
	_, err = program(t, "status", "all")
	refused(t, err, "all")
}

func TestAdminLogLevel(t *testing.T) {
	defer restoreLogLevel(t)()
	a := newAgent(t)
	a.prints("log-level 3", "log level 3\n")
	a.prints("log-level", "log level 3\n")
	if got := get[logLevel](a, "log-level"); got.Level != 3 {
		t.Errorf("log level %+v", got)
	}
	a.fails("log-level 11", "want 0 to 10")
	a.fails("log-level much", `log-level "much": want 0 to 10`)
	a.prints("log-level 0", "log level 0\n")
}

// What does not fit a route is refused by name, and nobody but the socket has profiles.
func TestAdminRoutes(t *testing.T) {
	a := newAgent(t)
	c := newClient(a.socket)
	var nothing any
	refused(t, c.do(t.Context(), http.MethodPut, "/v1/pools/default/size", map[string]int{"megabytes": 1}, &nothing), "PUT /v1/pools/default/size: body", `"megabytes"`)
	refused(t, c.do(t.Context(), http.MethodPut, "/v1/pools/default/size", poolSize{}, &nothing), "size 0: want more than nothing")
	refused(t, c.do(t.Context(), http.MethodDelete, "/v1/pools/default/size", nil, &nothing), "the agent answers 405", "another version")
	refused(t, c.do(t.Context(), http.MethodGet, "/v2/status", nil, &nothing), "the agent answers 404")
	profile, err := c.http.Get("http://agent/debug/pprof/goroutine?debug=1")
	must0(t, err)
	must0(t, profile.Body.Close())
	if profile.StatusCode != http.StatusOK {
		t.Errorf("profile: %s", profile.Status)
	}
}

// The socket is root's alone, goes with the server, and is not shared.
func TestServeAdmin(t *testing.T) {
	dir, err := os.MkdirTemp("", "a")
	must0(t, err)
	defer os.RemoveAll(dir)
	c := config{AdminSocket: filepath.Join(dir, "d", "admin.sock")}
	failed := make(chan error, 1)
	driver := csi.New(csi.Options{})
	server, err := c.serveAdmin(t.Context(), driver, failed)
	must0(t, err)
	st, err := os.Stat(c.AdminSocket)
	must0(t, err)
	if st.Mode().Perm()&0o077 != 0 {
		t.Errorf("the socket is open to others: %s", st.Mode())
	}
	_, err = c.serveAdmin(t.Context(), driver, failed)
	refused(t, err, "--admin-socket", "another process serves it")
	out, err := program(t, "status", "-o", "json", "--admin-socket", c.AdminSocket)
	if err != nil || out != "[]\n" {
		t.Errorf("printed %q, error %v", out, err)
	}
	must0(t, server.Close())
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := os.Stat(c.AdminSocket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	c.AdminSocket = "relative.sock"
	_, err = c.serveAdmin(t.Context(), driver, failed)
	refused(t, err, "--admin-socket", "relative.sock")
}

// A pool that does not answer keeps nobody from the others.
func TestWithin(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	if _, ok := within(time.Millisecond, func() int { <-end; return 1 }); ok {
		t.Error("it answered")
	}
	if got, ok := within(time.Minute, func() int { return 1 }); !ok || got != 1 {
		t.Errorf("answered %d, %v", got, ok)
	}
}
