package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// mostEntries are those of a page for which nobody asked for fewer.
const mostEntries = 1000

// ListVolumes lists the volumes of all pools, in the order of their ids. The token is the
// last id of a page.
func (g *Gateway) ListVolumes(ctx context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	type entry = *csi.ListVolumesResponse_Entry
	fetch := func(a *agent, token string, most int32) ([]entry, bool, error) {
		page, err := call(ctx, g, a, "ListVolumes", a.ListVolumes, &csi.ListVolumesRequest{MaxEntries: most, StartingToken: token})
		for _, e := range page.GetEntries() {
			e.Volume.AccessibleTopology = []*csi.Topology{plugin.Topology(a.node)}
		}
		return page.GetEntries(), page.GetNextToken() != "", err
	}
	id := func(e entry) string { return e.GetVolume().GetVolumeId() }
	entries, next, err := list(ctx, g, plugin.Volume, r.GetMaxEntries(), r.GetStartingToken(), fetch, id)
	if err != nil {
		return nil, err
	}
	return &csi.ListVolumesResponse{Entries: entries, NextToken: next}, nil
}

// ListSnapshots lists snapshots likewise; those of an id or of a volume are asked of their
// pool alone.
func (g *Gateway) ListSnapshots(ctx context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	one, text := plugin.Snapshot, r.GetSnapshotId()
	if text == "" {
		one, text = plugin.Volume, r.GetSourceVolumeId()
	}
	if text != "" {
		a, err := g.routeID(ctx, one, "the id", text)
		switch {
		case status.Code(err) == codes.NotFound:
			return &csi.ListSnapshotsResponse{}, nil
		case err != nil:
			return nil, err
		}
		return call(ctx, g, a, "ListSnapshots", a.ListSnapshots, r)
	}
	type entry = *csi.ListSnapshotsResponse_Entry
	fetch := func(a *agent, token string, most int32) ([]entry, bool, error) {
		page, err := call(ctx, g, a, "ListSnapshots", a.ListSnapshots, &csi.ListSnapshotsRequest{MaxEntries: most, StartingToken: token})
		return page.GetEntries(), page.GetNextToken() != "", err
	}
	id := func(e entry) string { return e.GetSnapshot().GetSnapshotId() }
	entries, next, err := list(ctx, g, plugin.Snapshot, r.GetMaxEntries(), r.GetStartingToken(), fetch, id)
	if err != nil {
		return nil, err
	}
	return &csi.ListSnapshotsResponse{Entries: entries, NextToken: next}, nil
}

// list visits the pools in the order of their keys, and returns a page of what fetch has
// of them. id is that of an entry.
func list[E any](
	ctx context.Context, g *Gateway, k plugin.Kind, most int32, token string,
	fetch func(a *agent, token string, most int32) (page []E, more bool, err error), id func(E) string,
) (entries []E, next string, err error) {
	var from plugin.ID
	if token != "" {
		if from, err = plugin.ParseID(k, token); err != nil {
			return nil, "", status.Errorf(codes.Aborted, "starting_token %.140q was not given out here", token)
		}
	}
	limit := int(most)
	switch {
	case most < 0:
		return nil, "", status.Errorf(codes.InvalidArgument, "max_entries %d", most)
	case most == 0 || most > mostEntries:
		limit = mostEntries
	}
	keys, err := g.listed(ctx, from.Pool)
	if err != nil {
		return nil, "", err
	}
	for _, key := range keys {
		if key < from.Pool {
			continue
		}
		at := key // from its beginning
		if key == from.Pool {
			at = token
		}
		for more := true; more; {
			if len(entries) == limit {
				return entries, id(entries[limit-1]), nil
			}
			a, err := g.route(ctx, key)
			if err != nil {
				return nil, "", err
			}
			var page []E
			if page, more, err = fetch(a, at, int32(limit-len(entries))); err != nil {
				return nil, "", err
			}
			for _, e := range page {
				if !strings.HasPrefix(id(e), key+".") { // the agent's next pool has its turn
					more = false
					break
				}
				entries, at = append(entries, e), id(e)
			}
		}
	}
	return entries, "", nil
}

// listed returns the keys of the pools that a list is of. All must be connected that
// were seen, or that a token names: a list that looks whole must be.
func (g *Gateway) listed(ctx context.Context, from string) ([]string, error) {
	if g.starting() {
		g.await(ctx, func() bool { return false })
		if g.starting() {
			return nil, unavailable("the controller has just started, and does not know yet whether all nodes are connected")
		}
	}
	places := g.fleet.places()
	if _, known := places[from]; from != "" && !known && !g.Lost(from) {
		return nil, errAbsent(from, place{}, false)
	}
	var absent []string
	keys := slices.Sorted(maps.Keys(places))
	for _, key := range keys {
		if len(g.fleet.owners(key)) == 0 {
			absent = append(absent, fmt.Sprintf("pool %s of node %s", places[key].pool, places[key].node))
		}
	}
	if len(absent) > 0 {
		return nil, unavailable("the list would lack what is not connected: %s", strings.Join(slices.Sorted(slices.Values(absent)), ", "))
	}
	return keys, nil
}
