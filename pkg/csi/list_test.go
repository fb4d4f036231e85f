package csi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// pagesOf reads a list page by page, with something happening between two.
func (l *lab) pagesOf(t testing.TB, most int32, between func(page []string)) (all []string, pages int) {
	t.Helper()
	for token := ""; ; {
		a := got[*spec.ListVolumesResponse](t)(l.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: most, StartingToken: token}))
		var page []string
		for _, e := range a.GetEntries() {
			page = append(page, e.GetVolume().GetVolumeId())
		}
		if len(page) > int(most) {
			t.Fatalf("%d entries, want %d at most", len(page), most)
		}
		all, pages, token = append(all, page...), pages+1, a.GetNextToken()
		if token == "" {
			return all, pages
		}
		if between != nil {
			between(page)
		}
	}
}

func TestListVolumes(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	equals(t, "none", len(l.volumes(t)), 0)
	var ids []string
	var first *spec.Volume
	for i := range 12 {
		v := l.volume(t, fmt.Sprintf("v-%02d", i), inPool([]string{"default", "fast"}[i%2]), size(mib, 0))
		if i == 0 {
			first = v
		}
		l.snapshot(t, fmt.Sprintf("s-%02d", i), v) // which is no volume
		ids = append(ids, v.GetVolumeId())
	}
	ids = append(ids, l.volume(t, "Hashed", size(mib, 0)).GetVolumeId())
	must(t, l.set(t, 0).AddDevice("z-somebody-elses", "", map[string]string{"fs": "none", "size": "1M"}))
	must(t, l.set(t, 0).AddDevice("a-somebody-elses", "", map[string]string{"fs": "none", "size": "1M"}))
	slices.Sort(ids)

	equals(t, "all", l.volumes(t), ids)
	for most := range int32(len(ids) + 2) {
		if most == 0 {
			continue
		}
		all, pages := l.pagesOf(t, most, nil)
		equals(t, "all", all, ids)
		equals(t, fmt.Sprintf("pages of %d", most), pages, (len(ids)+int(most)-1)/int(most))
	}
	e := got[*spec.ListVolumesResponse](t)(l.ListVolumes(t.Context(), &spec.ListVolumesRequest{})).GetEntries()
	at := slices.IndexFunc(e, func(e *spec.ListVolumesResponse_Entry) bool {
		return e.GetVolume().GetVolumeId() == first.GetVolumeId()
	})
	equals(t, "an entry is what its creation answered", e[at].GetVolume(), first)

	_, err := l.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: -1})
	refuses(t, err, codes.InvalidArgument, "max_entries")
	for _, token := range append(badIDs(ids[0]), "1", l.snapshots(t)[0]) {
		if plugin.IsKey(token) {
			continue
		}
		_, err := l.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: token})
		refuses(t, err, codes.Aborted, "token")
	}
	// The key of a pool is its beginning.
	key, _, _ := strings.Cut(ids[0], ".")
	whole := got[*spec.ListVolumesResponse](t)(l.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: key}))
	equals(t, "from the beginning of the pool", len(whole.GetEntries()), len(ids))
	// A token is a place, and need not be that of a volume.
	a := got[*spec.ListVolumesResponse](t)(l.ListVolumes(t.Context(), &spec.ListVolumesRequest{StartingToken: ids[3] + "-"}))
	equals(t, "from there on", a.GetEntries()[0].GetVolume().GetVolumeId(), ids[4])
}

// A volume that is there all the time is listed once, whatever comes and goes.
func TestListVolumesWhileTheyChange(t *testing.T) {
	t.Parallel()
	for _, most := range []int32{1, 2, 3, 5} {
		t.Run(fmt.Sprintf("pages of %d", most), func(t *testing.T) {
			w := newWorld(t)
			w.AddPool("fast", 4*gib)
			l := runOn(t, w)
			there := map[string]bool{}
			for i := range 10 {
				for _, pool := range w.Pools {
					v := l.volume(t, fmt.Sprintf("v-%02d-%s", i, pool), inPool(pool), size(mib, 0))
					there[v.GetVolumeId()] = true
				}
			}
			n := 0
			seen, _ := l.pagesOf(t, most, func(page []string) {
				// The last of a page goes, which is the token; one before; one that was never seen;
				// and new ones come before and behind.
				for _, id := range []string{page[len(page)-1], page[0], l.volumes(t)[len(l.volumes(t))-1]} {
					if n%2 == 0 {
						must(t, l.deleteVolume(t, &spec.Volume{VolumeId: id}))
						there[id] = false
					}
				}
				if n++; n > 30 { // or the end would never be reached
					return
				}
				for _, name := range []string{"a", "v-05", "z"} {
					l.volume(t, fmt.Sprintf("%s-new-%d", name, n), size(mib, 0))
				}
			})
			if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
				t.Errorf("not in order, or twice: %v", seen)
			}
			for id, stayed := range there {
				if stayed && !slices.Contains(seen, id) {
					t.Errorf("%s was not listed", id)
				}
			}
		})
	}
}

func TestListSnapshots(t *testing.T) {
	w := newWorld(t)
	w.AddPool("fast", 4*gib)
	l := runOn(t, w)
	a, b := l.volume(t, "a", size(mib, 0)), l.volume(t, "b", size(mib, 0), inPool("fast"))
	var ofA, ofB []string
	byID := map[string]*spec.Snapshot{}
	for i := range 5 {
		for of, ids := range map[*spec.Volume]*[]string{a: &ofA, b: &ofB} {
			s := l.snapshot(t, fmt.Sprintf("%s-%d", device(of.GetVolumeId()), i), of)
			byID[s.GetSnapshotId()] = s
			*ids = append(*ids, s.GetSnapshotId())
		}
	}
	all := slices.Sorted(slices.Values(slices.Concat(ofA, ofB)))
	list := func(r *spec.ListSnapshotsRequest) (ids []string) {
		t.Helper()
		for {
			page := got[*spec.ListSnapshotsResponse](t)(l.ListSnapshots(t.Context(), r))
			for _, e := range page.GetEntries() {
				equals(t, "entry", e.GetSnapshot(), byID[e.GetSnapshot().GetSnapshotId()])
				ids = append(ids, e.GetSnapshot().GetSnapshotId())
			}
			if r.StartingToken = page.GetNextToken(); r.StartingToken == "" {
				return ids
			}
		}
	}
	for most := range int32(12) {
		equals(t, "all", list(&spec.ListSnapshotsRequest{MaxEntries: most}), all)
		equals(t, "of a", list(&spec.ListSnapshotsRequest{MaxEntries: most, SourceVolumeId: a.GetVolumeId()}), ofA)
		equals(t, "of b", list(&spec.ListSnapshotsRequest{MaxEntries: most, SourceVolumeId: b.GetVolumeId()}), ofB)
	}
	none := []string(nil)
	for what, test := range map[string]struct {
		r    *spec.ListSnapshotsRequest
		want []string
	}{
		"by id":                   {&spec.ListSnapshotsRequest{SnapshotId: ofA[2]}, ofA[2:3]},
		"by both":                 {&spec.ListSnapshotsRequest{SnapshotId: ofA[2], SourceVolumeId: a.GetVolumeId()}, ofA[2:3]},
		"of another":              {&spec.ListSnapshotsRequest{SnapshotId: ofA[2], SourceVolumeId: b.GetVolumeId()}, none},
		"an unknown id":           {&spec.ListSnapshotsRequest{SnapshotId: ofA[2] + "x"}, none},
		"a volume's id":           {&spec.ListSnapshotsRequest{SnapshotId: a.GetVolumeId()}, none},
		"no id of ours":           {&spec.ListSnapshotsRequest{SnapshotId: "fake"}, none},
		"of an unknown volume":    {&spec.ListSnapshotsRequest{SourceVolumeId: a.GetVolumeId() + "x"}, none},
		"of no volume of ours":    {&spec.ListSnapshotsRequest{SourceVolumeId: "fake"}, none},
		"of a snapshot":           {&spec.ListSnapshotsRequest{SourceVolumeId: ofA[0]}, none},
		"with secrets and a page": {&spec.ListSnapshotsRequest{SnapshotId: ofB[1], MaxEntries: 1, Secrets: map[string]string{"k": "v"}}, ofB[1:2]},
	} {
		equals(t, what, list(test.r), test.want)
	}
	for _, token := range []string{"1", "fake", a.GetVolumeId()} {
		_, err := l.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{StartingToken: token})
		refuses(t, err, codes.Aborted, "token")
	}
	for _, r := range []*spec.ListSnapshotsRequest{{MaxEntries: -1}, {MaxEntries: -1, SnapshotId: ofA[0]}} {
		_, err := l.ListSnapshots(t.Context(), r)
		refuses(t, err, codes.InvalidArgument, "max_entries")
	}

	// Their volume may be gone.
	must(t, l.deleteVolume(t, a))
	equals(t, "of a", list(&spec.ListSnapshotsRequest{SourceVolumeId: a.GetVolumeId()}), ofA)

	// The last of a page goes before the next is read.
	page := got[*spec.ListSnapshotsResponse](t)(l.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{MaxEntries: 3}))
	must(t, l.deleteSnapshot(t, byID[all[2]]))
	equals(t, "the rest", list(&spec.ListSnapshotsRequest{StartingToken: page.GetNextToken()}), all[3:])
	page = got[*spec.ListSnapshotsResponse](t)(l.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{MaxEntries: int32(len(all) - 2)}))
	must(t, l.deleteSnapshot(t, byID[all[len(all)-1]]))
	equals(t, "nothing", list(&spec.ListSnapshotsRequest{StartingToken: page.GetNextToken()}), none)
}
