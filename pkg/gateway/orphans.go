package gateway

import (
	"context"
	"fmt"
	"slices"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// An Orphan is a volume that nobody knows: an attempt to make it had no answer, and was
// repeated on another node; or it was forgotten without being deleted. It is reported, and
// never deleted: nobody can tell here whether its data are wanted.
type Orphan struct {
	ID    string
	Node  string // as in a topology
	Bytes int64
}

// Orphans returns the volumes of all nodes whose ids are not among the known ones, which
// are asked for when the volumes are: one that is just being made may be among them.
func Orphans(
	ctx context.Context, list func(context.Context, *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error),
	known func(context.Context) (map[string]bool, error),
) (orphans []Orphan, err error) {
	var all []*csi.Volume
	for r := (&csi.ListVolumesRequest{}); ; {
		page, err := list(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("list volumes: %w", err)
		}
		for _, e := range page.GetEntries() {
			all = append(all, e.GetVolume())
		}
		if r.StartingToken = page.GetNextToken(); r.StartingToken == "" {
			break
		}
	}
	ids, err := known(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if !ids[v.GetVolumeId()] {
			orphans = append(orphans, Orphan{v.GetVolumeId(), nodeOf(v), v.GetCapacityBytes()})
		}
	}
	return orphans, nil
}

func nodeOf(v *csi.Volume) string {
	for _, t := range v.GetAccessibleTopology() {
		return t.GetSegments()[plugin.TopologyKey]
	}
	return ""
}

// WatchOrphans looks for orphans again and again until ctx ends. Those that it finds twice
// in a row are in the metrics and the log. While a node is away it cannot look.
func (g *Gateway) WatchOrphans(ctx context.Context, every time.Duration, known func(context.Context) (map[string]bool, error)) {
	log := klog.FromContext(ctx)
	var before []Orphan
	for sleep(ctx, every); ctx.Err() == nil; sleep(ctx, every) {
		found, err := Orphans(ctx, g.ListVolumes, known)
		if err != nil {
			log.V(2).Info("Orphans were not looked for", "why", err)
			continue
		}
		last := map[string]float64{}
		for _, o := range found {
			if !slices.Contains(before, o) {
				continue
			}
			log.Info("No PersistentVolume names a volume: it stays, and can be deleted by hand", "volume", o.ID, "node", o.Node, "bytes", o.Bytes)
			last[o.Node]++
		}
		before = found
		g.orphans.Store(&last)
	}
}
