package deviceset_test

import (
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset/simulated"
)

func TestSmoke(t *testing.T) {
	w := simulated.NewWorld(1 << 40)
	w.NewDisk("/dev/data", 64<<20)
	w.NewDisk("/dev/meta", 4<<20)
	m := w.Process(nil)
	m.Trace()
	opts := []string{"dm.datadev=/dev/data", "dm.metadatadev=/dev/meta", "dm.basesize=4M"}
	s, err := deviceset.OpenQuiet(m, "/root", 128<<10, opts...)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Steps() {
		t.Log(l)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"add a none", func() error { return s.AddDevice("a", "", map[string]string{"fs": "none", "size": "1M"}) }},
		{"add b none", func() error { return s.AddDevice("b", "", map[string]string{"fs": "none", "size": "1M"}) }},
		{"add c ext4", func() error { return s.AddDevice("c", "", nil) }},
		{"snap d of c", func() error { return s.AddDevice("d", "c", map[string]string{"size": "8M"}) }},
		{"mount d", func() error { return s.MountDevice("d", "/mnt/d", deviceset.MountOpts{}) }},
		{"snap e of d", func() error { return s.AddDevice("e", "d", nil) }},
		{"grow d", func() error { return s.GrowDevice("d", 9<<20) }},
		{"delete d", func() error { return s.DeleteDevice("d", false) }},
		{"delete a", func() error { return s.DeleteDevice("a", true) }},
	} {
		err := step.do()
		t.Log("----", step.name, err)
		for _, l := range m.Steps() {
			t.Log(l)
		}
	}
	t.Logf("%+v", s.Status())
	w.Kill()
	m = w.Process(nil)
	m.Trace()
	s, err = deviceset.OpenQuiet(m, "/root", 128<<10, opts...)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Steps() {
		t.Log(l)
	}
	t.Log(s.List())
	t.Logf("%+v", s.Status())
	t.Log(s.Shutdown("/root"))
}
