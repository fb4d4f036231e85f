// Package csitest is a csi.Driver on a simulated machine, for tests of what needs no
// kernel.
package csitest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A Host is what a simulated machine has beside a Machine.
type Host struct{ *simulated.Machine }

// Unmount unmounts a path.
func (h Host) Unmount(ctx context.Context, target string) error {
	return h.Machine.Unmount(ctx, target, false)
}

// MountedAt tells what is mounted at a path.
func (h Host) MountedAt(path string) (csi.Mounted, bool, error) {
	m, node, ok := h.BoundAt(path)
	return csi.Mounted{Dev: m.Dev, ReadOnly: m.ReadOnly, Node: node}, ok, nil
}

// MountPoints returns where a device is mounted.
func (h Host) MountPoints(dev dm.DevNo) ([]string, error) { return h.Bindings(dev), nil }

// IsOurs reports whether a device has one of our UUIDs.
func (h Host) IsOurs(dev dm.DevNo) (bool, error) {
	devices, err := dm.List(h.Kernel, "", deviceset.UUIDPrefix)
	for _, d := range devices {
		if info, err := dm.ByName(h.Kernel, d.Name).Info(); err == nil && info.Dev == dev {
			return true, nil
		}
	}
	return false, err
}

// Usage is that of a file system of which nobody has written anything.
func (h Host) Usage(path string) (filesystem.Usage, error) {
	if _, _, ok := h.BoundAt(path); !ok {
		return filesystem.Usage{}, fmt.Errorf("nothing is mounted at %s", path)
	}
	return filesystem.Usage{Total: 1 << 30, Used: 1 << 20, Available: 1<<30 - 1<<20, Inodes: 1 << 16, InodesUsed: 11, InodesFree: 1<<16 - 11}, nil
}

// Sizes of a World's disks.
const (
	DataSize     = 64 << 30
	MetadataSize = 64 << 20
)

// A World is a simulated machine with the disks of a pool.
type World struct {
	*simulated.World
	KubeletDir string
	Root       string
}

// NewWorld makes a world, whose directories for mounts are real ones.
func NewWorld(kubeletDir string) *World {
	w := &World{simulated.NewWorld(1 << 40), kubeletDir, "/root"}
	w.NewDisk("/dev/data", DataSize)
	w.NewDisk("/dev/metadata", MetadataSize)
	return w
}

// Driver starts a driver in a process of its own.
func (w *World) Driver(options ...string) *csi.Driver {
	m := w.Process(nil)
	return csi.New(csi.Options{
		Version: "test", Node: "node", KubeletDir: w.KubeletDir, Host: Host{m},
		Pools: []*csi.Pool{{Name: csi.DefaultPool, Open: func() (*graphdriver.Driver, error) {
			set, err := deviceset.Open(m, w.Root, true, slices.Concat([]string{
				"dm.datadev=/dev/data", "dm.metadatadev=/dev/metadata", "dm.use_deferred_deletion=false",
			}, options), nil, nil)
			if err != nil {
				return nil, err
			}
			return graphdriver.New(set, w.Root, nil, nil)
		}}},
	})
}

// Serve serves a driver on a socket until the test ends, and returns a connection.
func Serve(t testing.TB, d *csi.Driver, endpoint string) *grpc.ClientConn {
	t.Helper()
	d.Open(t.Context())
	l, err := csi.Listen(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, d, l, endpoint)
}

func serve(t testing.TB, d *csi.Driver, l net.Listener, endpoint string) *grpc.ClientConn {
	t.Helper()
	server := grpc.NewServer(grpc.UnaryInterceptor(d.Intercept(nil)))
	d.Register(server)
	go func() { _ = server.Serve(l) }() // until it is stopped
	c, err := grpc.NewClient("unix:"+strings.TrimPrefix(endpoint, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close() // it was only asked
		server.Stop()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
