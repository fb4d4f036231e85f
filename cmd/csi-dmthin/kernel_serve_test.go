package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// The test binary is also the program: with this variable it is csi-dmthin.
const programVariable = "CSI_DMTHIN_TEST_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(programVariable); args != "" {
		os.Args = append([]string{"csi-dmthin"}, strings.Split(args, "\n")...)
		main()
		return
	}
	if os.Getenv(bareVariable) != "" {
		os.Exit(runBare(m))
	}
	os.Exit(m.Run())
}

const (
	mib = 1 << 20
	gib = 1 << 30
)

// A node is a directory with a server, which may die, and what outlives it.
type node struct {
	testing.TB
	dir    string
	pools  []string
	server *exec.Cmd
	log    bytes.Buffer
	conn   *grpc.ClientConn
	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
}

func newNode(t testing.TB, pools ...string) *node {
	t.Helper()
	control := dmtest.RequireKernel(t)
	before, err := dmtest.DevicesAndLoops(control)
	must(t, err)
	dir, err := os.MkdirTemp("/dev/shm", "serve-")
	must(t, err)
	n := &node{TB: t, dir: dir, pools: pools}
	t.Cleanup(func() {
		n.stop()
		must(t, os.RemoveAll(dir))
		after, err := dmtest.DevicesAndLoops(control)
		must(t, errors.Join(err, control.Close()))
		if left := slices.DeleteFunc(after, func(d string) bool { return slices.Contains(before, d) }); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", n.log.String())
		}
	})
	must(t, os.MkdirAll(n.path("kubelet"), 0o700))
	n.start()
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// start starts the server and waits until its pools are open.
func (n *node) start() {
	n.Helper()
	n.launch()
	n.waitForPools()
}

// launch starts the server.
func (n *node) launch() {
	n.Helper()
	args := []string{
		"serve", "--endpoint", "unix://" + n.path("csi.sock"), "--admin-socket", n.path("admin.sock"), "--state-dir", n.path("state"),
		"--kubelet-dir", n.path("kubelet"), "--node", "node", "--http", "",
	}
	for _, pool := range n.pools {
		args = append(args, "--pools", pool)
	}
	n.server = exec.Command(os.Args[0])
	n.server.Env = append(os.Environ(), programVariable+"="+strings.Join(args, "\n"))
	n.server.Stdout, n.server.Stderr = &n.log, &n.log
	must(n, n.server.Start())
	conn, err := grpc.NewClient("unix:"+n.path("csi.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), grpc.WithConnectParams(quickly))
	must(n, err)
	n.conn = conn
	n.IdentityClient, n.ControllerClient, n.NodeClient = csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)
}

func (n *node) waitForPools() {
	n.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := n.ListVolumes(n.ctx(), &csi.ListVolumesRequest{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.Fatalf("the server does not serve: %v\n%s", err, n.log.String())
		}
	}
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(n.Context(), time.Minute)
	n.Cleanup(cancel)
	return ctx
}

// quickly connects to a server that is about to come.
var quickly = grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}}

// kill kills the server, as the kernel does a process that is out of memory.
func (n *node) kill() {
	n.Helper()
	must(n, n.server.Process.Kill())
	_ = n.server.Wait() // it was killed
	must(n, n.conn.Close())
}

// stop ends the server in an orderly way.
func (n *node) stop() {
	if n.server.ProcessState != nil {
		return
	}
	_ = n.server.Process.Signal(unix.SIGTERM)
	if err := n.server.Wait(); err != nil {
		n.Errorf("the server ended with %v", err)
	}
	_ = n.conn.Close() // the server is gone
}

func mountCapability(fs string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fs}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func blockCapability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

// Below are the calls of an orchestrator, short enough for stories. Each may be
// repeated, and then answers the same.

func (n *node) create(name string, c *csi.VolumeCapability, size int64, source *csi.VolumeContentSource) (string, error) {
	r, err := n.CreateVolume(n.ctx(), &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{c}, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeContentSource: source,
	})
	return r.GetVolume().GetVolumeId(), err
}

func (n *node) snapshot(name, volume string) (string, error) {
	r, err := n.CreateSnapshot(n.ctx(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	return r.GetSnapshot().GetSnapshotId(), err
}

func ofSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func ofVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func (n *node) staging(name string) string { return n.path("kubelet/staging-" + name) }
func (n *node) target(name string) string  { return n.path("kubelet/target-" + name) }

func (n *node) stage(name, id string, c *csi.VolumeCapability) error {
	must(n, os.MkdirAll(n.staging(name), 0o750))
	_, err := n.NodeStageVolume(n.ctx(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: n.staging(name), VolumeCapability: c})
	return err
}

func (n *node) publish(name, id string, c *csi.VolumeCapability) error {
	_, err := n.NodePublishVolume(n.ctx(), &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: n.staging(name), TargetPath: n.target(name), VolumeCapability: c,
	})
	return err
}

func (n *node) unpublish(name, id string) error {
	_, err := n.NodeUnpublishVolume(n.ctx(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: n.target(name)})
	return err
}

func (n *node) unstage(name, id string) error {
	_, err := n.NodeUnstageVolume(n.ctx(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: n.staging(name)})
	return err
}

func (n *node) expand(id string, size int64) error {
	_, err := n.ControllerExpandVolume(n.ctx(), &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: size}})
	return err
}

func (n *node) expandNode(name, id string, size int64) error {
	_, err := n.NodeExpandVolume(n.ctx(), &csi.NodeExpandVolumeRequest{
		VolumeId: id, VolumePath: n.target(name), CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	return err
}

func (n *node) delete(id string) error {
	_, err := n.DeleteVolume(n.ctx(), &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

// write writes content that a seed makes, durably.
func (n *node) write(name string, seed uint64) error {
	f, err := os.Create(n.target(name) + "/file")
	if err != nil {
		return err
	}
	_, err = f.Write(content(seed))
	return errors.Join(err, f.Sync(), f.Close())
}

func (n *node) reads(name string, seed uint64) error {
	have, err := os.ReadFile(n.target(name) + "/file")
	if err == nil && !bytes.Equal(have, content(seed)) {
		err = fmt.Errorf("%s has other content than %d", name, seed)
	}
	return err
}

func content(seed uint64) []byte {
	b := make([]byte, mib)
	random := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed)))
	_, _ = io.ReadFull(random, b) // never fails
	return b
}

// larger fails unless the file system has more than a size.
func (n *node) larger(name string, size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(n.target(name), &st); err != nil {
		return err
	}
	if have := int64(st.Blocks) * st.Frsize; have < size*9/10 {
		return fmt.Errorf("the file system of %s has %d bytes, want about %d", name, have, size)
	}
	return nil
}

// A chapter is a call, or a look at what calls have done. What may be repeated is.
type chapter struct {
	name string
	do   func() error
}

// story is the life of volumes of one file system.
func (n *node) story(fs string) []chapter {
	c := mountCapability(fs)
	const size = 512 * mib
	var a, b, d, s string // ids, which each repeat finds again
	get := func(to *string, call func() (string, error)) func() error {
		return func() error {
			id, err := call()
			if err == nil && *to != "" && *to != id {
				err = fmt.Errorf("the id was %s and is %s", *to, id)
			}
			if err == nil {
				*to = id
			}
			return err
		}
	}
	return []chapter{
		{"create a", get(&a, func() (string, error) { return n.create("a", c, size, nil) })},
		{"stage a", func() error { return n.stage("a", a, c) }},
		{"publish a", func() error { return n.publish("a", a, c) }},
		{"write 1 to a", func() error { return n.write("a", 1) }},
		{"snapshot a as s", get(&s, func() (string, error) { return n.snapshot("s", a) })},
		{"write 2 to a", func() error { return n.write("a", 2) }},
		{"restore s as b, larger", get(&b, func() (string, error) { return n.create("b", c, 2*size, ofSnapshot(s)) })},
		{"stage b", func() error { return n.stage("b", b, c) }},
		{"publish b", func() error { return n.publish("b", b, c) }},
		{"b is as a was, and larger", func() error { return errors.Join(n.reads("b", 1), n.larger("b", 2*size)) }},
		{"clone a as d", get(&d, func() (string, error) { return n.create("d", c, size, ofVolume(a)) })},
		{"expand a", func() error { return n.expand(a, 3*size) }},
		{"expand a's file system", func() error { return n.expandNode("a", a, 3*size) }},
		{"a is larger", func() error { return errors.Join(n.reads("a", 2), n.larger("a", 3*size)) }},
		{"unpublish a", func() error { return n.unpublish("a", a) }},
		{"unstage a", func() error { return n.unstage("a", a) }},
		{"delete a", func() error { return n.delete(a) }},
		{"stage d", func() error { return n.stage("d", d, c) }},
		{"publish d", func() error { return n.publish("d", d, c) }},
		{"d is as a was", func() error { return errors.Join(n.reads("d", 2), n.reads("b", 1)) }},
		{"unpublish d", func() error { return n.unpublish("d", d) }},
		{"unstage d", func() error { return n.unstage("d", d) }},
		{"delete s", func() error {
			_, err := n.DeleteSnapshot(n.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: s})
			return err
		}},
		{"b is as a was", func() error { return n.reads("b", 1) }},
		{"unpublish b", func() error { return n.unpublish("b", b) }},
		{"unstage b", func() error { return n.unstage("b", b) }},
		{"delete b", func() error { return n.delete(b) }},
		{"delete d", func() error { return n.delete(d) }},
	}
}

// empty fails unless nothing is there any more.
func (n *node) empty() {
	n.Helper()
	volumes, err := n.ListVolumes(n.ctx(), &csi.ListVolumesRequest{})
	must(n, err)
	snapshots, err := n.ListSnapshots(n.ctx(), &csi.ListSnapshotsRequest{})
	must(n, err)
	if len(volumes.GetEntries()) != 0 || len(snapshots.GetEntries()) != 0 {
		n.Errorf("volumes %v, snapshots %v", volumes.GetEntries(), snapshots.GetEntries())
	}
}

const smallPool = "default:loopdatasize=4G,loopmetadatasize=16M,min_free_space=0%,overprovision_ratio=0"

// A volume's content goes where it is to, and nowhere else, though the server dies: after
// each call, and once more at some moment of it.
func TestKernelServe(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			for _, mode := range []string{"undisturbed", "killed after each call", "killed in each call"} {
				t.Run(mode, func(t *testing.T) {
					n := newNode(t, smallPool)
					for _, chapter := range n.story(fs) {
						if err := n.tell(chapter, mode); err != nil {
							t.Fatalf("%s: %v", chapter.name, err)
						}
					}
					n.empty()
				})
			}
		})
	}
}

// tell lets a chapter happen, and once more after the server has died.
func (n *node) tell(c chapter, mode string) error {
	n.Helper()
	if mode == "killed in each call" {
		done := make(chan struct{})
		go func() { defer close(done); _ = c.do() }() // what counts is the repeat
		select {
		case <-done:
		case <-time.After(time.Duration(rand.Int64N(int64(20 * time.Millisecond)))):
			n.kill()
			<-done
			n.start()
		}
	}
	if err := c.do(); err != nil || mode == "undisturbed" {
		return err
	}
	if mode == "killed after each call" {
		n.kill()
		n.start()
	}
	if strings.HasPrefix(c.name, "delete") || strings.HasPrefix(c.name, "write") {
		return nil
	}
	return c.do()
}

// Raw block: what is written is there after a restart, in a snapshot as it was, and in
// what is restored from it.
func TestKernelServeBlock(t *testing.T) {
	n := newNode(t, smallPool)
	c := blockCapability()
	a, err := n.create("a", c, 256*mib, nil)
	must(t, err)
	must(t, errors.Join(n.stage("a", a, c), n.publish("a", a, c)))
	write := func(name string, seed uint64) {
		t.Helper()
		f, err := os.OpenFile(n.target(name), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.Write(content(seed))
		must(t, errors.Join(err, f.Sync(), f.Close()))
	}
	reads := func(name string, seed uint64) {
		t.Helper()
		f, err := os.Open(n.target(name))
		must(t, err)
		b := make([]byte, mib)
		_, err = io.ReadFull(f, b)
		must(t, errors.Join(err, f.Close()))
		if !bytes.Equal(b, content(seed)) {
			t.Errorf("%s has other content than %d", name, seed)
		}
	}
	write("a", 1)
	s, err := n.snapshot("s", a)
	must(t, err)
	write("a", 2)
	n.kill()
	n.start()
	reads("a", 2)
	must(t, n.expand(a, 512*mib))
	b, err := n.create("b", c, 512*mib, ofSnapshot(s))
	must(t, err)
	must(t, errors.Join(n.stage("b", b, c), n.publish("b", b, c)))
	reads("b", 1)
	for name, id := range map[string]string{"a": a, "b": b} {
		f, err := os.Open(n.target(name))
		must(t, err)
		size, err := f.Seek(0, io.SeekEnd)
		must(t, errors.Join(err, f.Close()))
		if size != 512*mib {
			t.Errorf("%s has %d bytes", name, size)
		}
		stats, err := n.NodeGetVolumeStats(n.ctx(), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: n.target(name)})
		must(t, err)
		if u := stats.GetUsage()[0]; u.GetTotal() != size || u.GetUsed() != mib {
			t.Errorf("%s: %v", name, u)
		}
		if err := n.delete(id); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("delete of %s, which is published: %v", name, err)
		}
		must(t, errors.Join(n.unpublish(name, id), n.unstage(name, id), n.delete(id)))
	}
	_, err = n.DeleteSnapshot(n.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: s})
	must(t, err)
	n.empty()
}

// A pool that runs full while somebody writes says so, keeps what was synced, and works
// again when there is room.
func TestKernelServeFull(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			n := newNode(t, "default:loopdatasize=768M,loopmetadatasize=16M,min_free_space=0%,overprovision_ratio=0")
			c := mountCapability(fs)
			ids := map[string]string{}
			for _, name := range []string{"a", "b"} {
				id, err := n.create(name, c, gib, nil)
				must(t, err)
				must(t, errors.Join(n.stage(name, id, c), n.publish(name, id, c), n.write(name, 1)))
				ids[name] = id
			}
			fill := func(name string) error {
				f, err := os.Create(n.target(name) + "/fill")
				must(t, err)
				for err == nil {
					if _, err = f.Write(make([]byte, mib)); err == nil {
						err = f.Sync()
					}
				}
				return errors.Join(err, f.Close())
			}
			t.Logf("the writer heard: %v", fill("a"))
			health, err := n.NodeGetVolumeHealth(n.ctx(), &csi.NodeGetVolumeHealthRequest{VolumeId: ids["b"]})
			must(t, err)
			if h := health.GetVolumeHealth().GetHealthStatuses(); len(h) == 0 || h[0].GetReason() != "PoolFull" {
				t.Errorf("health: %v", h)
			}
			if _, err := n.snapshot("s", ids["a"]); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("snapshot on a full pool: %v", err)
			}
			if _, err := n.create("x", c, gib, nil); err != nil && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("create on a full pool: %v", err)
			}
			must(t, n.reads("b", 1))
			must(t, errors.Join(n.unpublish("b", ids["b"]), n.unstage("b", ids["b"]), n.delete(ids["b"])))
			must(t, errors.Join(n.unpublish("a", ids["a"]), n.unstage("a", ids["a"])))
			_ = n.delete("x")
			must(t, errors.Join(n.stage("a", ids["a"], c), n.publish("a", ids["a"], c), n.reads("a", 1)))
			must(t, os.Remove(n.target("a")+"/fill"))
			must(t, n.write("a", 3))
			must(t, errors.Join(n.unpublish("a", ids["a"]), n.unstage("a", ids["a"]), n.delete(ids["a"])))
		})
	}
}
