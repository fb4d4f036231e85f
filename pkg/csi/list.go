package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// mostEntries are those of a page for which nobody asked for fewer.
const mostEntries = 1000

// ListVolumes lists volumes in the order of their ids. The token is the last id of a
// page: what is made or deleted between two pages moves no other. The key of a pool is one
// too.
func (d *Driver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	page, next, err := d.page(plugin.Volume, r.GetMaxEntries(), r.GetStartingToken(), everything)
	if err != nil {
		return nil, err
	}
	answer := &csi.ListVolumesResponse{NextToken: next, Entries: make([]*csi.ListVolumesResponse_Entry, len(page))}
	nothing := &csi.ListVolumesResponse_VolumeStatus{} // nothing is published by a controller
	for i := range page {
		answer.Entries[i] = &csi.ListVolumesResponse_Entry{Volume: d.presentVolume(&page[i]), Status: nothing}
	}
	return answer, nil
}

// ListSnapshots lists snapshots likewise, all or those of a volume or an id.
func (d *Driver) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	var page []volume
	var next string
	var err error
	source := r.GetSourceVolumeId()
	of := func(v *volume) bool { return source == "" || v.sourceID() == source }
	switch {
	case r.GetMaxEntries() < 0:
		err = fmt.Errorf("%w: max_entries %d", errInvalid, r.GetMaxEntries())
	case r.GetSnapshotId() != "":
		page, err = d.one(r.GetSnapshotId(), of)
	default:
		page, next, err = d.page(plugin.Snapshot, r.GetMaxEntries(), r.GetStartingToken(), of)
	}
	if err != nil {
		return nil, err
	}
	answer := &csi.ListSnapshotsResponse{NextToken: next}
	for _, s := range page {
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: presentSnapshot(s)})
	}
	return answer, nil
}

func everything(*volume) bool { return true }

// one returns the snapshot of an id, if there is one that is wanted.
func (d *Driver) one(text string, wanted func(*volume) bool) ([]volume, error) {
	s, err := d.find(plugin.Snapshot, text)
	switch {
	case errors.Is(err, plugin.ErrNoSuchID), errors.Is(err, deviceset.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case !wanted(&s):
		return nil, nil
	}
	return []volume{s}, nil
}

// page returns at most most devices of a kind that are wanted, from behind a token on,
// and the token of the next page. A pool that is not open makes it an error: a list
// that looks whole must be.
func (d *Driver) page(k plugin.Kind, most int32, token string, wanted func(*volume) bool) (page []volume, next string, err error) {
	from := plugin.ID{}
	switch {
	case plugin.IsKey(token):
		from.Pool = token // from the beginning of that pool
	case token != "":
		if from, err = plugin.ParseID(k, token); err != nil {
			return nil, "", fmt.Errorf("%w: %q", errBadToken, token)
		}
	}
	limit := int(most)
	switch {
	case most < 0:
		return nil, "", fmt.Errorf("%w: max_entries %d", errInvalid, most)
	case most == 0 || most > mostEntries:
		limit = mostEntries
	}
	for _, p := range d.pools {
		if _, err := p.Layers(); err != nil && !p.isEmpty() {
			return nil, "", err
		}
	}
	for _, p := range d.pools.byKey() {
		if p.Key() < from.Pool {
			continue
		}
		after := string(k)
		if p.Key() == from.Pool && from.Device != "" {
			after = from.Device
		}
		if page, err = p.list(page, k, after, limit+1, wanted); err != nil {
			return nil, "", err
		}
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].id()
	}
	return page, next, nil
}

// list adds devices of a kind to a page until it has limit.
func (p *Pool) list(page []volume, k plugin.Kind, after string, limit int, wanted func(*volume) bool) ([]volume, error) {
	layers, err := p.Layers()
	if err != nil {
		return page, err
	}
	for len(page) < limit {
		devices, next := layers.Devices(after, limit-len(page))
		page = slices.Grow(page, len(devices))
		for i := range devices {
			device := &devices[i]
			switch plugin.KindOf(device.Name) {
			case k:
				if page = append(page, volume{*device, p, layers}); !wanted(&page[len(page)-1]) {
					page = page[:len(page)-1]
				}
			case "":
			default:
				if device.Name > string(k)+"~" {
					return page, nil // those of other kinds come behind
				}
			}
		}
		if next == "" {
			return page, nil
		}
		after = next
	}
	return page, nil
}
