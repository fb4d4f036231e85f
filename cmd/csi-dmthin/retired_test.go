package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

// A shelf is a configuration on a simulated machine. Its directories are real ones.
type shelf struct {
	testing.TB
	config
	world *simulated.World
}

// newShelf has a pool on disks and one on files, each with a volume.
func newShelf(t testing.TB) *shelf {
	t.Helper()
	s := &shelf{TB: t, world: simulated.NewWorld(1 << 40)}
	s.StateDir = t.TempDir()
	s.world.NewDisk("/dev/data", 64*mib)
	s.world.NewDisk("/dev/metadata", 4*mib)
	must0(t, s.Pools.Set("disks:datadev=/dev/data,metadatadev=/dev/metadata,overprovision_ratio=0,grow-to=1G"))
	must0(t, s.Pools.Set("files:loopdatasize=64M,loopmetadatasize=4M,overprovision_ratio=0,preallocate=true"))
	before := files
	files = s.world.Process(nil)
	t.Cleanup(func() { files = before })
	for _, name := range s.Pools.names() {
		must0(t, os.MkdirAll(s.root(name), 0o700))
		layers, err := s.openConfigured(name, s.machine)
		must0(t, err)
		must0(t, layers.CreateReadWrite("v-1", "", &graphdriver.CreateOpts{StorageOpt: map[string]string{"fs": "none", "size": "1M"}}))
		must0(t, layers.Cleanup())
	}
	return s
}

func (s *shelf) machine() (machine, error) { return simulatedMachine{s.world.Process(nil)}, nil }

// retire takes all pools out of the configuration, and returns one of them.
func (s *shelf) retire(name string) retiredPool {
	s.Helper()
	s.Pools = nil
	for _, r := range s.retired() {
		if r.name == name {
			return r
		}
	}
	s.Fatalf("there is no pool %s", name)
	return retiredPool{}
}

// A pool that is not in the configuration is opened by the options that it was last
// opened with, or, of an older state, by what its journal has.
func TestRetiredPoolOpens(t *testing.T) {
	for _, name := range []string{"disks", "files"} {
		for _, remembers := range []bool{true, false} {
			s := newShelf(t)
			memory := filepath.Join(s.root(name), memoryFile)
			if !remembers {
				must0(t, os.Remove(memory))
			}
			r := s.retire(name)
			if want := map[bool]int64{true: gib}[remembers && name == "disks"]; r.growTo() != want {
				t.Errorf("%s may grow to %d, want %d", name, r.growTo(), want)
			}
			layers, err := r.open(s.machine)
			must0(t, err)
			if have := layers.List(); len(have) != 1 || have[0] != "v-1" {
				t.Errorf("%s has %q", name, have)
			}
			if total := layers.DeviceSet.Status().Data.Total; total != 64*mib {
				t.Errorf("%s has %d bytes", name, total)
			}
			must0(t, layers.Remove("v-1"))
			must0(t, layers.Cleanup())
			isEmptyPool(t, s, r)
		}
	}
}

func isEmptyPool(t testing.TB, s *shelf, r retiredPool) {
	t.Helper()
	var empty *csi.EmptyPool
	if _, err := r.open(s.machine); !errors.As(err, &empty) || empty.Secret == "" || empty.Root != r.root() {
		t.Errorf("opening it answers %v", err)
	}
	devices, err := dm.List(s.world.Kernel(), "", deviceset.UUIDPrefix)
	must0(t, err)
	if len(devices) > 0 {
		t.Errorf("left behind: %v", devices)
	}
}

// What a process that died has left of a pool without volumes is taken down.
func TestRetiredPoolIsClosed(t *testing.T) {
	s := newShelf(t)
	layers, err := s.openConfigured("disks", s.machine)
	must0(t, err)
	must0(t, errors.Join(layers.Remove("v-1"), layers.Cleanup()))
	_, err = s.openConfigured("disks", s.machine)
	must0(t, err)
	s.world.Kill()
	files = s.world.Process(nil)
	isEmptyPool(t, s, s.retire("disks"))
}

// Of two roots of one pool neither is opened that is not in the configuration.
func TestRetiredCopy(t *testing.T) {
	s := newShelf(t)
	copied := s.root("saved")
	must0(t, os.Mkdir(copied, 0o700))
	must0(t, s.world.Process(nil).MakeSlots(copied, 4*mib))
	for i, path := range simulated.SlotPaths(copied) {
		s.world.DiskAt(path).Restore(s.world.DiskAt(simulated.SlotPaths(s.root("disks"))[i]))
	}
	configured := s.Pools
	for _, name := range []string{"saved", "disks"} {
		_, err := s.retire(name).open(s.machine)
		if err == nil || !strings.Contains(err.Error(), s.root("saved")) || !strings.Contains(err.Error(), s.root("disks")) {
			t.Errorf("opening %s answers %v", name, err)
		}
	}
	s.Pools = configured
	layers, err := s.openConfigured("disks", s.machine)
	must0(t, err)
	s.Pools = nil
	if _, err := (retiredPool{&s.config, "saved"}).open(s.machine); err == nil || !strings.Contains(err.Error(), s.root("disks")) {
		t.Errorf("opening the copy of what is open answers %v", err)
	}
	must0(t, layers.Cleanup())
}

// A damaged journal does not say where the pool is. Its options do, and the label has a
// copy.
func TestRetiredPoolThatIsDamaged(t *testing.T) {
	s := newShelf(t)
	for _, path := range simulated.SlotPaths(s.root("disks")) {
		f, err := s.world.Kernel().Open(s.world.DiskAt(path).Dev())
		must0(t, err)
		_, err = f.WriteAt(make([]byte, 4096), 4096)
		must0(t, errors.Join(err, f.Sync(), f.Close()))
	}
	memory := filepath.Join(s.root("disks"), memoryFile)
	r := s.retire("disks")
	layers, err := r.open(s.machine)
	must0(t, err)
	must0(t, layers.Cleanup())

	must0(t, os.WriteFile(memory, []byte(`{"options": {"of-a-newer-version": "1"}}`), 0o600))
	for _, path := range simulated.SlotPaths(s.root("disks")) {
		f, err := s.world.Kernel().Open(s.world.DiskAt(path).Dev())
		must0(t, err)
		_, err = f.WriteAt(make([]byte, 4096), 4096)
		must0(t, errors.Join(err, f.Sync(), f.Close()))
	}
	if _, err := r.open(s.machine); err == nil || !strings.Contains(err.Error(), "configure it again") || !strings.Contains(err.Error(), r.root()) {
		t.Errorf("opening it answers %v", err)
	}
}

// What is no root is no pool.
func TestRetiredFindsRootsAlone(t *testing.T) {
	s := newShelf(t)
	for _, name := range []string{"lost+found", ".hidden", "files.bak", "empty", "files.0123456", "Files"} {
		must0(t, os.Mkdir(s.root(name), 0o700))
	}
	must0(t, os.WriteFile(s.root("file"), nil, 0o600))
	s.Pools = nil
	var names []string
	for _, r := range s.retired() {
		names = append(names, r.name)
	}
	if strings.Join(names, " ") != "disks files" {
		t.Errorf("found %q", names)
	}
	s.StateDir = filepath.Join(s.StateDir, "nowhere")
	if len(s.retired()) > 0 {
		t.Error("pools where there is no directory")
	}
}

// Options are written down once, and those of before stay until the new ones are whole.
func TestRemember(t *testing.T) {
	root := t.TempDir()
	if _, ok := recall(root); ok {
		t.Error("it recalls what was never there")
	}
	options := map[string]string{"loopdatasize": "1G", "grow-to": "2G"}
	must0(t, remember(root, options))
	first, err := os.Stat(filepath.Join(root, memoryFile))
	must0(t, err)
	must0(t, remember(root, options))
	second, err := os.Stat(filepath.Join(root, memoryFile))
	must0(t, err)
	if !os.SameFile(first, second) {
		t.Error("it was written again")
	}
	must0(t, os.WriteFile(filepath.Join(root, memoryFile+".new"), []byte("half of i"), 0o600)) // killed
	if have, ok := recall(root); !ok || have["grow-to"] != "2G" {
		t.Errorf("recalled %v, %v", have, ok)
	}
	must0(t, remember(root, map[string]string{"fs": "xfs"}))
	if have, ok := recall(root); !ok || len(have) != 1 || have["fs"] != "xfs" {
		t.Errorf("recalled %v, %v", have, ok)
	}
	if err := remember(filepath.Join(root, "nowhere"), options); err == nil {
		t.Error("it remembers where there is nothing")
	}
}
