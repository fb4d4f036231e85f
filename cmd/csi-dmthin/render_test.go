package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares what is printed with a file of testdata.
func golden(t *testing.T, name string, print func(io.Writer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := print(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s: printed\n%s\nwant\n%s", name, b.Bytes(), want)
	}
	for line := range strings.Lines(b.String()) {
		if strings.TrimRight(line, " \n")+"\n" != line {
			t.Errorf("%s: blanks at the end of %q", name, line)
		}
	}
}

// golden compares a value both as text and as JSON.
func goldenBoth(t *testing.T, name string, value any, text func(io.Writer) error) {
	t.Helper()
	golden(t, name+".txt", text)
	golden(t, name+".json", func(w io.Writer) error { return outputJSON.print(w, value, nil) })
}

func bytesOf(n int64) *int64 { return &n }

var (
	illPool = poolStatus{
		Pool: "fast", UUID: "00000000000000000000000000000002", Key: "f57b8e1039ce926a76ebb462bfa29dd9",
		Mode: "ro", NeedsCheck: true, ReadOnly: "state and pool disagree: the root directory is older than the pool",
		Data:     &fill{Used: 95 << 30, Total: 100 << 30, Available: 2 << 30, KeptFree: 10 << 30, Percent: 10, Option: "min_free_space"},
		Metadata: &fill{Used: 4 << 20, Total: 57 << 20, Available: 53 << 20},
		Promised: &promised{Bytes: 120 << 30, Limit: 200 << 30, Ratio: 2}, GrowTo: 1 << 40,
		Devices: 12, PendingDeletions: 3, OpenOperations: 1, Snapshots: 4711,
		Orphans: []dm.DeviceID{7777, 7778}, Ghosts: []string{"v-pvc-2", "v-pvc-3"}, Quarantined: []dm.DeviceID{9},
		Warnings: []string{"options without effect: dm.metadata_snap"},
	}
	wellPool = poolStatus{
		Pool: "default", UUID: "00000000000000000000000000000001", Key: "9d897f02537fc405a873255dc9424dba", Mode: "rw",
		Data:             &fill{Used: 7 << 30, Total: 20 << 30, Available: 13 << 30},
		Metadata:         &fill{Used: 3 << 20, Total: 57 << 20, Available: 54 << 20, KeptFree: 57 << 18, Percent: 25, Option: "min_free_metadata"},
		MetadataHeldBack: 6 << 20, Promised: &promised{Bytes: 30 << 30}, Room: 13 << 30,
		DataOn: "/dev/vdb", MetadataOn: "/dev/vdc",
	}
	downPool = poolStatus{
		Pool: "down", UUID: "00000000000000000000000000000003", Key: "aaaa", Mode: "unavailable",
		Data: &fill{}, Metadata: &fill{}, Promised: &promised{Bytes: 1 << 30, Ratio: 1},
	}
	closedPool = poolStatus{Pool: "slow", Problem: "open /dev/vdd: no such file or directory"}
)

func TestPrintStatus(t *testing.T) {
	pools := []poolStatus{wellPool, illPool, downPool, closedPool}
	goldenBoth(t, "status", pools, func(w io.Writer) error { return printStatus(w, pools) })
}

// family is a volume with snapshots, a clone, a volume whose snapshot is gone and one that
// has the name of its own ancestor.
var family = []listedDevice{
	{Name: "nightly", Kind: "snapshot", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.s-nightly", Device: "s-nightly", ThinID: 2, BlockDevice: "csi-dmthin-00000000-2", Size: 10 << 30, Used: bytesOf(3 << 30), Exclusive: bytesOf(0), Source: "v-pvc-1", FileSystem: "ext4", Formatted: true, Created: time.Unix(1_700_000_000, 0).UTC()},
	{Name: "weekly", Kind: "snapshot", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.s-weekly", Device: "s-weekly", ThinID: 5, BlockDevice: "csi-dmthin-00000000-5", Size: 10 << 30, Source: "v-pvc-1", FileSystem: "ext4", Formatted: true, Created: time.Unix(1_700_100_000, 0).UTC()},
	{Name: "pvc-1", Kind: "volume", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.v-pvc-1", Device: "v-pvc-1", ThinID: 1, BlockDevice: "csi-dmthin-00000000-1", Size: 10 << 30, Used: bytesOf(7<<30 + 1<<29), Exclusive: bytesOf(4 << 30), FileSystem: "ext4", Formatted: true, Created: time.Unix(1_699_999_000, 0).UTC()},
	{Name: "pvc-2", Kind: "volume", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.v-pvc-2", Device: "v-pvc-2", ThinID: 3, BlockDevice: "csi-dmthin-00000000-3", Size: 12 << 30, Used: bytesOf(3 << 30), Source: "s-nightly", FileSystem: "ext4", Formatted: true, Created: time.Unix(1_700_000_500, 0).UTC()},
	{Name: "pvc-3", Kind: "volume", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.v-pvc-3", Device: "v-pvc-3", ThinID: 4, BlockDevice: "csi-dmthin-00000000-4", Size: 1 << 30, Used: bytesOf(0), FileSystem: "xfs", Created: time.Unix(1_700_000_600, 0).UTC()},
	{Name: "pvc-4", Kind: "volume", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.v-pvc-4", Device: "v-pvc-4", ThinID: 6, BlockDevice: "csi-dmthin-00000000-6", Size: 1 << 30, Used: bytesOf(1 << 20), Source: "s-old", SourceGone: true, Block: true, Created: time.Unix(1_700_000_700, 0).UTC()},
	{Name: "pvc-5", Kind: "volume", Pool: "default", ID: "9d897f02537fc405a873255dc9424dba.v-pvc-5", Device: "v-pvc-5", ThinID: 7, BlockDevice: "csi-dmthin-00000000-7", Size: 1 << 30, Source: "s-old", SourceGone: true, Block: true, Created: time.Unix(1_700_000_800, 0).UTC(), Problem: "the pool has lost the device: v-pvc-5 (thin device 7)"},
	{Name: "found", Kind: "other", Pool: "fast", Device: "found", ThinID: 8, BlockDevice: "csi-dmthin-00000001-8", Size: 1 << 30, Used: bytesOf(1 << 29), Adopted: true, Created: time.Unix(1_700_000_900, 0).UTC()},
}

func TestPrintDevices(t *testing.T) {
	goldenBoth(t, "devices", deviceList{Devices: family, Missing: []missingPool{{"slow", "it was not opened yet"}}},
		func(w io.Writer) error { return printDevices(w, family, false) })
	golden(t, "devices_wide.txt", func(w io.Writer) error { return printDevices(w, family, true) })
	golden(t, "devices_none.txt", func(w io.Writer) error { return printDevices(w, nil, false) })
}

func TestPrintTree(t *testing.T) {
	golden(t, "tree.txt", func(w io.Writer) error { return printTree(w, family) })
}

func TestPrintChecks(t *testing.T) {
	checks := []poolCheck{
		{"default", []finding{}},
		{"fast", []finding{
			{Kind: isReadOnly, Says: "the root directory is older than the pool", Do: "adopt it"},
			{Kind: isSuspended, Object: "csi-dmthin-00000001-8 (v-pvc-1)", Says: "it is suspended: whoever uses it waits", Do: "start the agent anew"},
		}},
		{"slow", []finding{{Kind: isNotOpen, Says: "it was not opened yet", Do: "wait"}}},
	}
	goldenBoth(t, "check", checks, func(w io.Writer) error { return printChecks(w, checks) })
	refused(t, verdict(checks), "check: pool fast has 2 findings, pool slow has 1 finding")
	if err := verdict(checks[:1]); err != nil {
		t.Error(err)
	}
}

func TestPrintAdoption(t *testing.T) {
	a := adoption{Pool: "default", UUID: "00000000000000000000000000000001", Key: "572319d8cbd1aa552fb2cd4f30190ce7", From: "label", Devices: []adoptedDevice{
		{ID: 1, Name: "v-pvc-1", Size: 10 << 30, FS: "ext4", Becomes: becomesKept},
		{ID: 2, Name: "s-nightly", Size: 10 << 30, FS: "ext4", Parent: "v-pvc-1", Becomes: becomesKept},
		{ID: 3, Name: "v-pvc-2", Size: 3 << 20, Becomes: becomesQuarantined, Why: "its deletion had begun"},
		{ID: 7777, Size: 1 << 30, Becomes: becomesQuarantined, Why: "no record of it"},
		{Name: "v-pvc-3", Becomes: becomesLost, Why: "the pool does not have it"},
	}}
	goldenBoth(t, "adoption", a, func(w io.Writer) error { return printAdoption(w, a) })
	a.Done = true
	golden(t, "adoption_done.txt", func(w io.Writer) error { return printAdoption(w, a) })
	golden(t, "adoption_empty.txt", func(w io.Writer) error { return printAdoption(w, adoption{Pool: "default", UUID: "1", From: "root"}) })
}

func TestPrintGrowth(t *testing.T) {
	g := growth{"default", 10 << 30, wellPool}
	golden(t, "growth.txt", func(w io.Writer) error { return printGrowth(w, g) })
	g.Before = 20 << 30
	golden(t, "growth_none.txt", func(w io.Writer) error { return printGrowth(w, g) })
}

// What the client gets is what the server had.
func TestJSONComesBack(t *testing.T) {
	for _, value := range []any{&illPool, &deviceList{Devices: family}, &poolCheck{Pool: "a", Findings: []finding{{Kind: isGhost}}}} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		back := newOf(value)
		if err := json.Unmarshal(text, back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(back)
		if err != nil || !bytes.Equal(text, again) {
			t.Errorf("%s came back as %s, error %v", text, again, err)
		}
	}
}

func newOf(value any) any {
	switch value.(type) {
	case *poolStatus:
		return new(poolStatus)
	case *deviceList:
		return new(deviceList)
	}
	return new(poolCheck)
}
