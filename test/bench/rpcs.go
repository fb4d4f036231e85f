package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	driver "github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// manyCalls is how many RPCs are on their way at once, as from a busy orchestrator.
const manyCalls = 32

// An rpcRig is a CSI driver of a set, behind a socket.
type rpcRig struct {
	*setRig
	csi.ControllerClient
	csi.NodeClient
	driver  *driver.Driver
	metrics *prometheus.Registry
}

func newRPCRig() (r *rpcRig, err error) {
	set, err := newSetRig(false)
	if err != nil {
		return nil, err
	}
	r = &rpcRig{setRig: set, metrics: prometheus.NewRegistry()}
	if err := r.serve(); err != nil {
		return nil, set.closeAfter(err)
	}
	return r, nil
}

func (r *rpcRig) serve() error {
	layers, err := graphdriver.New(r.set, r.root, nil, nil)
	if err != nil {
		return err
	}
	d := driver.New(driver.Options{
		Version: "bench", Node: "bench", KubeletDir: r.dir, Host: driver.ThisHost{},
		Pools: []*driver.Pool{{Name: plugin.DefaultPool, Open: func() (*graphdriver.Driver, error) { return layers, nil }}},
	})
	r.driver = d
	d.Open(context.Background())
	m := driver.NewMetrics(r.metrics, d, true)
	path := filepath.Join(r.dir, "csi.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(d.Intercept(m.ObserveCall)))
	d.Register(server)
	go func() { _ = server.Serve(l) }() // until it is stopped
	r.later(func() error { server.Stop(); return nil })
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	r.later(conn.Close)
	r.ControllerClient, r.NodeClient = csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	return nil
}

// An rpcRow is what an RPC took, alone and beside others.
type rpcRow struct {
	name          string
	alone, atOnce times
}

func (row rpcRow) String() string {
	return fmt.Sprintf("%s\t%s\t\t%s\t", row.name, row.alone.cells(), row.atOnce.cells())
}

const rpcTitle = "RPC"

// rpcs measures CSI's calls over the socket, and with many volumes those that a cluster
// makes all the time.
func (b bench) rpcs(f *findings) (err error) {
	if !b.wants(rpcTitle) {
		return nil
	}
	r, err := newRPCRig()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	rows, err := r.lives()
	if err != nil {
		return err
	}
	fmt.Println()
	w := newTable(fmt.Sprintf("%s\tp50\tp99\t%d at once\tp50\tp99\t", rpcTitle, manyCalls))
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush() // to standard output, like everything here
	return r.crowded(b.devices, f)
}

var ext4 = &csi.VolumeCapability{
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
}

// lives measures the lives of volumes, step by step: first one after the other, then
// many at once.
func (r *rpcRig) lives() (rows []rpcRow, err error) {
	const n = 2 * manyCalls
	for _, workers := range []int{1, manyCalls} {
		l := &lives{rpcRig: r, prefix: fmt.Sprintf("at-%d-", workers), volumes: make([]string, n+1), snapshots: make([]string, n+1), restored: make([]string, n+1)}
		for i, step := range l.steps() {
			if i == len(rows) {
				rows = append(rows, rpcRow{name: step.name})
			}
			took, err := inParallel(n, workers, step.do)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", step.name, err)
			}
			sortTimes(took)
			if workers == 1 {
				rows[i].alone = took
			} else {
				rows[i].atOnce = took
			}
		}
	}
	return rows, nil
}

type lives struct {
	*rpcRig
	prefix                       string
	volumes, snapshots, restored []string // ids
}

type lifeStep struct {
	name string
	do   func(int) error
}

func (l *lives) steps() []lifeStep {
	ctx := context.Background()
	return []lifeStep{
		{"CreateVolume", func(i int) (err error) { l.volumes[i], err = l.create(l.name(i), nil); return err }},
		{"stage, format and publish", func(i int) error { return l.use(i, l.volumes[i]) }},
		{"CreateSnapshot of a mounted volume", func(i int) error {
			s, err := l.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: l.name(i), SourceVolumeId: l.volumes[i]})
			l.snapshots[i] = s.GetSnapshot().GetSnapshotId()
			return err
		}},
		{"CreateVolume from a snapshot", func(i int) (err error) {
			l.restored[i], err = l.create(l.name(i)+"-restored", &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: l.snapshots[i]},
			}})
			return err
		}},
		{"unpublish and unstage", func(i int) error { return l.release(i, l.volumes[i]) }},
		{"stage and publish again", func(i int) error { return l.use(i, l.volumes[i]) }},
		{"unpublish and unstage again", func(i int) error { return l.release(i, l.volumes[i]) }},
		{"DeleteSnapshot", func(i int) error {
			_, err := l.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: l.snapshots[i]})
			return err
		}},
		{"DeleteVolume", func(i int) error { return l.delete(l.volumes[i]) }},
		{"DeleteVolume of a restored one", func(i int) error { return l.delete(l.restored[i]) }},
	}
}

func (l *lives) name(i int) string { return fmt.Sprint(l.prefix, i) }

func (r *rpcRig) create(name string, source *csi.VolumeContentSource) (string, error) {
	v, err := r.CreateVolume(context.Background(), &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{ext4}, VolumeContentSource: source,
		CapacityRange: &csi.CapacityRange{RequiredBytes: volumeSize},
	})
	return v.GetVolume().GetVolumeId(), err
}

func (r *rpcRig) delete(id string) error {
	_, err := r.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

func (l *lives) paths(i int) (staging, target string) {
	dir := filepath.Join(l.dir, "mnt", l.name(i))
	return filepath.Join(dir, "staging"), filepath.Join(dir, "target")
}

func (l *lives) use(i int, id string) error {
	staging, target := l.paths(i)
	if err := os.MkdirAll(staging, 0o700); err != nil {
		return err
	}
	_, err := l.NodeStageVolume(context.Background(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: ext4})
	if err != nil {
		return err
	}
	_, err = l.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: ext4,
	})
	return err
}

func (l *lives) release(i int, id string) error {
	staging, target := l.paths(i)
	if _, err := l.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target}); err != nil {
		return err
	}
	_, err := l.NodeUnstageVolume(context.Background(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging})
	return err
}

// mostList is how long a list of all volumes may take.
const mostList = 20 * time.Millisecond

// crowded measures what a cluster asks all the time, with n volumes.
func (r *rpcRig) crowded(n int, f *findings) error {
	if _, err := inParallel(n, manyCalls, func(i int) error { _, err := r.create(fmt.Sprint("crowd-", i), nil); return err }); err != nil {
		return err
	}
	for _, ask := range []struct {
		name string
		most time.Duration
		do   func() error
	}{
		{"ListVolumes, all pages", mostList, func() error { return listAll(n, r.driver.ListVolumes) }},
		{"ListVolumes, all pages, over the socket", time.Second, func() error {
			return listAll(n, func(ctx context.Context, q *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
				return r.ListVolumes(ctx, q)
			})
		}},
		{"GetCapacity", mostList, func() error {
			_, err := r.GetCapacity(context.Background(), &csi.GetCapacityRequest{})
			return err
		}},
		{"a scrape of the metrics", time.Second, func() error { _, err := r.metrics.Gather(); return err }},
	} {
		if err := r.askOften(fmt.Sprintf("%s, %d volumes", ask.name, n), ask.most, ask.do, f); err != nil {
			return err
		}
	}
	return nil
}

// listAll lists volumes page by page.
func listAll(want int, list func(context.Context, *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error)) error {
	have, token := 0, ""
	for {
		page, err := list(context.Background(), &csi.ListVolumesRequest{StartingToken: token})
		if err != nil {
			return err
		}
		have, token = have+len(page.GetEntries()), page.GetNextToken()
		if token == "" {
			break
		}
	}
	if have != want {
		return fmt.Errorf("%d volumes are listed, want %d", have, want)
	}
	return nil
}

// askOften asks something that may cost the pool no flush. What else the machine does
// only adds to the time, so the limit is for the least.
func (r *rpcRig) askOften(title string, most time.Duration, ask func() error, f *findings) error {
	time.Sleep(2 * time.Second) // the kernel commits by itself what was changed
	before, err := r.flushes()
	if err != nil {
		return err
	}
	all, err := inParallel(16, 1, func(int) error { return ask() })
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	after, err := r.flushes()
	if err != nil {
		return err
	}
	sortTimes(all)
	f.tell("%s: %s us at least, %s us half the time, %d device flushes", title, micros(all[0]), micros(all.quantile(.5)), after-before)
	if all[0] > most {
		f.breaks("%s: %v, want %v at most", title, all[0], most)
	}
	if after != before {
		f.breaks("%s: %d device flushes, want none", title, after-before)
	}
	return nil
}
