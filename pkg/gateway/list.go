package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

const (
	// mostEntries are those of a page for which nobody asked for fewer.
	mostEntries = 1000
	// mostNamed are the pools that an error names.
	mostNamed = 10
)

// ListVolumes lists the volumes of all pools, in the order of their ids. The token is the
// last id of a page.
func (g *Gateway) ListVolumes(ctx context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	type entry = *csi.ListVolumesResponse_Entry
	fetch := func(a *agent, token string, most int32) ([]entry, bool, error) {
		page, err := call(ctx, g, a, "ListVolumes", a.ListVolumes, &csi.ListVolumesRequest{MaxEntries: most, StartingToken: token})
		for _, e := range page.GetEntries() {
			if v := e.GetVolume(); v != nil {
				v.AccessibleTopology = []*csi.Topology{plugin.Topology(a.node)}
			}
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
		a, i, err := g.routeID(ctx, one, "the id", text)
		switch {
		case status.Code(err) == codes.NotFound:
			return &csi.ListSnapshotsResponse{}, nil
		case err != nil:
			return nil, err
		}
		return g.snapshotsIn(ctx, a, i.Pool, r)
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

// snapshotsIn lists the snapshots of an id or a volume, in the pool that has them.
func (g *Gateway) snapshotsIn(ctx context.Context, a *agent, key string, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	answer, err := call(ctx, g, a, "ListSnapshots", a.ListSnapshots, r)
	if err != nil {
		return nil, err
	}
	for _, e := range answer.GetEntries() {
		s := e.GetSnapshot()
		i, err := plugin.ParseID(plugin.Snapshot, s.GetSnapshotId())
		switch {
		case err != nil, i.Pool != key,
			r.GetSnapshotId() != "" && s.GetSnapshotId() != r.GetSnapshotId(),
			r.GetSourceVolumeId() != "" && s.GetSourceVolumeId() != r.GetSourceVolumeId():
			return nil, wrongAnswer(a, "ListSnapshots", s.GetSnapshotId())
		}
	}
	return answer, nil
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
			own, err := ofPool(k, key, at, limit-len(entries), page, id)
			if err == nil && more && len(page) == 0 {
				err = errors.New("more is to come, and nothing is there")
			}
			if err != nil {
				return nil, "", wrongAnswer(a, "a list", err.Error())
			}
			more = more && len(own) == len(page) // the agent's next pool has its turn
			if entries = append(entries, own...); len(own) > 0 {
				at = id(own[len(own)-1])
			}
		}
	}
	return entries, "", nil
}

// ofPool returns what a page has of a pool, as far as the next pool of the same agent. It
// must go on from where it was asked, and be no larger.
func ofPool[E any](k plugin.Kind, key, at string, most int, page []E, id func(E) string) ([]E, error) {
	if len(page) > most {
		return nil, fmt.Errorf("%d entries, and %d were asked for", len(page), most)
	}
	for n, e := range page {
		i, err := plugin.ParseID(k, id(e))
		switch {
		case err != nil:
			return nil, err
		case id(e) <= at:
			return nil, fmt.Errorf("%s does not come after %s", id(e), at)
		case i.Pool != key:
			return page[:n], nil
		}
		at = id(e)
	}
	return page, nil
}

// listed returns the keys of the pools that a list is of. All must be connected that
// were seen, or that a token names: a list that looks whole must be.
func (g *Gateway) listed(ctx context.Context, from string) (keys []string, err error) {
	if err := g.allKnown(ctx); err != nil {
		return nil, err
	}
	if _, known := g.fleet.where(from); from != "" && !known && !g.Lost(from) {
		return nil, g.fleet.errAbsent(from)
	}
	var absent []string
	for _, s := range g.fleet.everywhere() {
		keys = append(keys, s.key)
		if !s.left.IsZero() {
			absent = append(absent, fmt.Sprintf("pool %s of node %s", s.pool, s.node))
		}
	}
	for at := range g.fleet.neverOpen() {
		absent = append(absent, fmt.Sprintf("pool %s of node %s", at.pool, at.node))
	}
	if len(absent) == 0 {
		return keys, nil
	}
	slices.Sort(absent)
	more := ""
	if n := len(absent) - mostNamed; n > 0 {
		absent, more = absent[:mostNamed], fmt.Sprintf(" and %d more", n)
	}
	return nil, unavailable("the list would lack what is not connected or not open: %s%s", strings.Join(absent, ", "), more)
}
