package graphdriver_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
)

const mib = int64(1) << 20

// newWorld returns a simulated machine with the disks of a pool.
func newWorld() *simulated.World {
	w := simulated.NewWorld(1 << 40)
	w.NewDisk("/dev/data", 64*mib)
	w.NewDisk("/dev/metadata", 4*mib)
	return w
}

var simulatedPool = []string{
	"dm.datadev=/dev/data", "dm.metadatadev=/dev/metadata", "dm.overprovision_ratio=0", "dm.basesize=1M", "dm.prefix=test",
}

// start starts a driver in a world. Its home is not simulated, and empty.
func start(t *testing.T, w *simulated.World, home string) *graphdriver.Driver {
	t.Helper()
	return startWith(t, w, home, simulatedPool)
}

func startWith(t *testing.T, w *simulated.World, home string, options []string) *graphdriver.Driver {
	t.Helper()
	set, err := deviceset.Open(w.Process(nil), home, true, options, nil, nil)
	must(t, err)
	d, err := graphdriver.New(set, home, nil, nil)
	must(t, err)
	t.Cleanup(func() { must(t, d.Cleanup()) })
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refuses(t testing.TB, err, cause error) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Fatalf("error is %v, want %v", err, cause)
	}
}

func equals(t testing.TB, what string, have, want any) {
	t.Helper()
	if !reflect.DeepEqual(have, want) {
		t.Fatalf("%s: have %v, want %v", what, have, want)
	}
}

func layers(t testing.TB, d *graphdriver.Driver) []string {
	t.Helper()
	names, err := d.ListLayers()
	must(t, err)
	return names
}

func storage(words ...string) *graphdriver.CreateOpts {
	o := &graphdriver.CreateOpts{StorageOpt: map[string]string{}}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		o.StorageOpt[key] = value
	}
	return o
}

// Layers are made once, however often they are asked for, and the next process has them.
func TestLayers(t *testing.T) {
	w, home := newWorld(), t.TempDir()
	d := start(t, w, home)
	equals(t, "at first", len(layers(t, d)), 0)
	for range 2 {
		must(t, d.Create("b", "", nil))
		must(t, d.CreateReadWrite("a", "b", storage("size=2M")))
		must(t, d.CreateFromTemplate("c", "a", "b", &graphdriver.CreateOpts{}, true))
		must(t, d.CreateFromTemplate("d", "a", "b", nil, false))
	}
	want := []string{"a", "b", "c", "d"}
	equals(t, "layers", layers(t, d), want)
	for name, parent := range map[string]string{"a": "b", "b": "", "c": "a", "d": "a"} {
		device, err := d.Device(name)
		must(t, err)
		equals(t, "parent of "+name, device.Parent, parent)
		equals(t, name, d.Exists(name), true)
	}

	must(t, d.Cleanup())
	must(t, d.Cleanup())
	refuses(t, d.Create("x", "", nil), deviceset.ErrShutDown)
	refuses(t, d.Remove("a"), deviceset.ErrShutDown)
	d = start(t, w, home)
	equals(t, "after a restart", layers(t, d), want)

	w.Kill()
	_ = d.Cleanup() // ends its goroutines, and gets nothing else done
	d = start(t, w, home)
	equals(t, "after a kill", layers(t, d), want)
}

func TestCreateRefuses(t *testing.T) {
	d := start(t, newWorld(), t.TempDir())
	must(t, d.Create("a", "", storage("size=2M")))
	for _, test := range []struct {
		id, parent string
		opts       *graphdriver.CreateOpts
		err        error
	}{
		{"x", "", storage("quota=1G"), deviceset.ErrInvalid},
		{"x", "", storage("size=much"), deviceset.ErrInvalid},
		{"x", "", storage("size=1M", "Size=1M"), deviceset.ErrInvalid},
		{"x", "a", storage("size=1M"), deviceset.ErrTooSmall},
		{"x", "nobody", nil, deviceset.ErrNotFound},
		{"x", "../a", nil, deviceset.ErrInvalid},
		{"a", "", nil, deviceset.ErrExists},
		{"a", "", storage("size=3M"), deviceset.ErrExists},
		{"", "", nil, deviceset.ErrInvalid},
		{"../x", "a", nil, deviceset.ErrInvalid},
		{".x", "", nil, deviceset.ErrInvalid},
	} {
		for _, create := range []func(string, string, *graphdriver.CreateOpts) error{
			d.Create, d.CreateReadWrite,
			func(id, template string, o *graphdriver.CreateOpts) error {
				return d.CreateFromTemplate(id, template, "", o, true)
			},
		} {
			if err := create(test.id, test.parent, test.opts); !errors.Is(err, test.err) {
				t.Errorf("%q of %q with %v: error is %v, want %v", test.id, test.parent, test.opts, err, test.err)
			}
		}
	}
	equals(t, "layers", layers(t, d), []string{"a"})
}

// What is not there is not found, by whatever name, and removed already.
func TestMissing(t *testing.T) {
	d := start(t, newWorld(), t.TempDir())
	must(t, d.Create("a", "", nil)) // and with it the base device
	for _, name := range []string{"b", "", ".", "..", "../mnt/a", "@base-ext4", "base", strings.Repeat("a", 200)} {
		equals(t, name, d.Exists(name), false)
		_, err := d.Metadata(name)
		refuses(t, err, deviceset.ErrNotFound)
		_, err = d.Get(name, graphdriver.MountOpts{})
		refuses(t, err, deviceset.ErrNotFound)
		refuses(t, d.Put(name), deviceset.ErrNotFound)
	}
	must(t, d.Remove("b"))
	refuses(t, d.Remove(""), deviceset.ErrInvalid)
	refuses(t, d.Remove("../mnt/a"), deviceset.ErrInvalid)
	equals(t, "layers", layers(t, d), []string{"a"})
}

func TestRemove(t *testing.T) {
	home := t.TempDir()
	d := start(t, newWorld(), home)
	must(t, d.Create("parent", "", nil))
	must(t, d.Create("child", "parent", nil))

	// What a process that died has left at its mount point goes, too.
	must(t, os.MkdirAll(filepath.Join(home, "mnt", "parent"), 0o755))
	must(t, os.WriteFile(filepath.Join(home, "mnt", ".parent.count"), []byte("0000000003\n"), 0o600))
	must(t, d.Remove("parent"))
	must(t, d.Remove("parent"))
	left, err := os.ReadDir(filepath.Join(home, "mnt"))
	must(t, err)
	equals(t, "left", len(left), 0)

	equals(t, "parent", d.Exists("parent"), false)
	equals(t, "layers", layers(t, d), []string{"child"})
	must(t, d.Create("parent", "child", nil))
}

func TestMetadata(t *testing.T) {
	d := start(t, newWorld(), t.TempDir())
	must(t, d.Create("a", "", storage("size=3M")))
	have, err := d.Metadata("a")
	must(t, err)
	st, err := d.GetDeviceStatus("a")
	must(t, err)
	equals(t, "metadata", have, map[string]string{
		"DeviceId":   strconv.Itoa(st.DeviceID),
		"DeviceSize": "3145728",
		"DeviceName": fmt.Sprintf("test-%s-%d", d.PoolUUID()[:8], st.DeviceID),
	})
}

// Names, order and units of what people and scripts read, of a pool on disks and of one
// on files.
func TestStatus(t *testing.T) {
	for name, options := range map[string][]string{
		"status-disks": simulatedPool,
		"status-files": {
			"dm.loopdatasize=64M", "dm.loopmetadatasize=4M", "dm.overprovision_ratio=0", "dm.basesize=1M", "dm.prefix=test",
			"dm.use_deferred_deletion=false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			d := startWith(t, newWorld(), home, options)
			var text strings.Builder
			for _, pair := range d.Status() {
				value := pair[1]
				if strings.HasSuffix(pair[0], " Used") || strings.HasSuffix(pair[0], " Available") {
					value = regexp.MustCompile(`^[0-9.]+`).ReplaceAllString(value, "N") // not for here
				}
				fmt.Fprintf(&text, "%s: %s\n", pair[0], value)
			}
			golden(t, name, strings.ReplaceAll(text.String(), home, "HOME"))
		})
	}
	d := start(t, newWorld(), t.TempDir())
	equals(t, "name", d.String(), "devicemapper")
	equals(t, "stores", len(d.AdditionalImageStores()), 0)
}

// golden compares text with a file, which UPDATE=1 writes.
func golden(t *testing.T, name, have string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		must(t, os.WriteFile(path, []byte(have), 0o600))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if have != string(want) {
		t.Errorf("%s is\n%swant\n%s", name, have, want)
	}
}

func TestNewRefusesIDMapsWithoutRoot(t *testing.T) {
	w, home := newWorld(), t.TempDir()
	set, err := deviceset.Open(w.Process(nil), home, true, simulatedPool, nil, nil)
	must(t, err)
	_, err = graphdriver.New(set, home, []graphdriver.IDMap{{ContainerID: 1, HostID: 1000, Size: 10}}, nil)
	refuses(t, err, deviceset.ErrInvalid)
	start(t, w, home) // the set is shut down
}
