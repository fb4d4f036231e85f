package csi_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// An orchestrator that has lost its mind calls everything in any order.
type orchestrator struct {
	*lab
	key string // of the pool
	any *rand.Rand
}

// calls are what can be done with a volume of a name, each with the codes that it may be
// answered with beside OK and ABORTED.
var calls = []struct {
	name  string
	do    func(o *orchestrator, t testing.TB, name string) error
	codes []codes.Code
}{
	{"create", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.tryVolume(t, name, size(16*mib, 0))
		return err
	}, nil},
	{"delete", func(o *orchestrator, t testing.TB, name string) error {
		return o.deleteVolume(t, o.of(name))
	}, []codes.Code{codes.FailedPrecondition}},
	{"snapshot", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.trySnapshot(t, "s-"+name, o.of(name))
		return err
	}, []codes.Code{codes.NotFound, codes.FailedPrecondition}}, // it is being formatted
	{"delete snapshot", func(o *orchestrator, t testing.TB, name string) error {
		return o.deleteSnapshot(t, o.snapshotOf(name))
	}, nil},
	{"clone", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.tryVolume(t, "c-"+name, fromVolume(o.of(name)), size(0, 0))
		return err
	}, []codes.Code{codes.NotFound, codes.FailedPrecondition}},
	{"delete clone", func(o *orchestrator, t testing.TB, name string) error {
		return o.deleteVolume(t, o.of("c-"+name))
	}, nil},
	{"restore", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.tryVolume(t, "r-"+name, fromSnapshot(o.snapshotOf(name)), size(0, 0))
		return err
	}, []codes.Code{codes.NotFound}},
	{"delete restored", func(o *orchestrator, t testing.TB, name string) error {
		return o.deleteVolume(t, o.of("r-"+name))
	}, nil},
	{"expand", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.expand(t, o.of(name), 16*mib+o.any.Int64N(16)*mib)
		return err
	}, []codes.Code{codes.NotFound}},
	{"stage", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.NodeStageVolume(t.Context(), &spec.NodeStageVolumeRequest{
			VolumeId: o.of(name).GetVolumeId(), StagingTargetPath: o.staging(o.of(name)), VolumeCapability: mount(""),
		})
		return err
	}, []codes.Code{codes.NotFound}},
	{"unstage", func(o *orchestrator, t testing.TB, name string) error {
		return o.unstage(t, o.of(name))
	}, []codes.Code{codes.FailedPrecondition}}, // it is published
	{"publish", func(o *orchestrator, t testing.TB, name string) error {
		return o.publish(t, o.of(name), o.target(name), mount(""))
	}, []codes.Code{codes.NotFound, codes.FailedPrecondition}},
	{"unpublish", func(o *orchestrator, t testing.TB, name string) error {
		return o.unpublish(t, o.of(name), o.target(name))
	}, nil},
	{"node expand", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.NodeExpandVolume(t.Context(), &spec.NodeExpandVolumeRequest{VolumeId: o.of(name).GetVolumeId(), VolumePath: o.staging(o.of(name))})
		return err
	}, []codes.Code{codes.NotFound}},
	{"stats", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.stats(t, o.of(name), o.staging(o.of(name)))
		return err
	}, []codes.Code{codes.NotFound, codes.Internal}}, // it was unmounted while it was asked
	{"list", func(o *orchestrator, t testing.TB, _ string) error {
		_, err := o.ListVolumes(t.Context(), &spec.ListVolumesRequest{MaxEntries: 3})
		return err
	}, nil},
	{"health", func(o *orchestrator, t testing.TB, name string) error {
		_, err := o.NodeGetVolumeHealth(t.Context(), &spec.NodeGetVolumeHealthRequest{VolumeId: o.of(name).GetVolumeId()})
		return err
	}, []codes.Code{codes.NotFound}},
}

func (o *orchestrator) of(name string) *spec.Volume {
	return &spec.Volume{VolumeId: o.key + ".v-" + name}
}

func (o *orchestrator) snapshotOf(name string) *spec.Snapshot {
	return &spec.Snapshot{SnapshotId: o.key + ".s-s-" + name}
}

func (o *orchestrator) target(name string) string { return fmt.Sprintf("%s-%d", name, o.any.IntN(3)) }

// Many who do anything at once, with one volume or with many, get codes that they can do
// something about, and nothing is left when all of it is deleted.
func TestConcurrentCalls(t *testing.T) {
	for _, names := range []int{1, 12} {
		t.Run(fmt.Sprintf("%d volumes", names), func(t *testing.T) {
			t.Parallel()
			l := runOn(t, csitest.NewWorldOf(t.TempDir(), 4*gib))
			key := l.volume(t, "n-0", size(16*mib, 0)).GetVolumeId()[:32]
			for i := range names {
				must(t, os.Mkdir(l.staging(&spec.Volume{VolumeId: fmt.Sprintf("%s.v-n-%d", key, i)}), 0o750))
			}
			before := len(l.devices(t))
			seed := uint64(time.Now().UnixNano())
			var all sync.WaitGroup
			for i := range uint64(64) {
				all.Go(func() {
					o := &orchestrator{l, key, rand.New(rand.NewPCG(seed, i))}
					for range 25 {
						c := calls[o.any.IntN(len(calls))]
						name := fmt.Sprintf("n-%d", o.any.IntN(names))
						err := c.do(o, t, name)
						if code := status.Code(err); code != codes.OK && code != codes.Aborted && !slices.Contains(c.codes, code) {
							t.Errorf("seed %d: %s %s: %v", seed, c.name, name, err)
						}
					}
				})
			}
			all.Wait()
			l.tidy(t, key, names)
			equals(t, "devices", len(l.devices(t)), before)
			equals(t, "thin devices", l.thins(t), 1) // the label
			st := l.set(t, 0).Status()
			equals(t, "devices, promised, open", []any{st.Devices, st.ProvisionedBytes, st.OpenOperations}, []any{0, uint64(0), 0})
			equals(t, "capacity", l.capacity(t, &spec.GetCapacityRequest{}) > 3*gib, true)
		})
	}
}

// tidy takes down and deletes all.
func (l *lab) tidy(t testing.TB, key string, names int) {
	t.Helper()
	for i := range names {
		v := &spec.Volume{VolumeId: fmt.Sprintf("%s.v-n-%d", key, i)}
		for target := range 3 {
			must(t, l.unpublish(t, v, fmt.Sprintf("n-%d-%d", i, target)))
		}
		must(t, l.unstage(t, v))
	}
	for _, id := range l.volumes(t) {
		must(t, l.deleteVolume(t, &spec.Volume{VolumeId: id}))
	}
	for _, id := range l.snapshots(t) {
		must(t, l.deleteSnapshot(t, &spec.Snapshot{SnapshotId: id}))
	}
}

// devices lists the dm devices.
func (l *lab) devices(t testing.TB) []dm.Listed {
	t.Helper()
	devices, err := dm.List(l.world.Kernel(), "", "")
	must(t, err)
	return devices
}

// Of many who make the same volume or snapshot at once, each gets the same one, or is told
// to ask again.
func TestOneNameAtOnce(t *testing.T) {
	l := run(t)
	source := l.volume(t, "source", size(16*mib, 0))
	for what, ask := range map[string]func() (fmt.Stringer, error){
		"volume":   func() (fmt.Stringer, error) { return l.tryVolume(t, "v", size(16*mib, 0)) },
		"clone":    func() (fmt.Stringer, error) { return l.tryVolume(t, "clone", fromVolume(source), size(0, 0)) },
		"snapshot": func() (fmt.Stringer, error) { return l.trySnapshot(t, "s", source) },
	} {
		var mu sync.Mutex
		answers := map[string]int{}
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for {
					answer, err := ask()
					if status.Code(err) == codes.Aborted {
						continue
					}
					mu.Lock()
					answers[fmt.Sprint(answer, err)]++
					mu.Unlock()
					return
				}
			})
		}
		all.Wait()
		equals(t, what+": answers", len(answers), 1)
	}
	equals(t, "thin devices", l.thins(t), 1+4)
}
