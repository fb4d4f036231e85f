package thinmeta

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"os/exec"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// run returns what a tool of thin-provisioning-tools prints.
func run(t testing.TB, tool string, args ...string) []byte {
	t.Helper()
	c := exec.Command(tool, args...)
	var diagnosis bytes.Buffer
	c.Stderr = &diagnosis
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", tool, args, err, diagnosis.Bytes())
	}
	return out
}

// A dump is what thin_dump prints.
type dump struct {
	Time        uint32 `xml:"time,attr"`
	Transaction uint64 `xml:"transaction,attr"`
	BlockSize   uint64 `xml:"data_block_size,attr"`
	DataBlocks  uint64 `xml:"nr_data_blocks,attr"`
	Devices     []struct {
		ID          devmapper.DeviceID `xml:"dev_id,attr"`
		Mapped      Blocks             `xml:"mapped_blocks,attr"`
		Transaction uint64             `xml:"transaction,attr"`
		Created     uint32             `xml:"creation_time,attr"`
		Snapshotted uint32             `xml:"snap_time,attr"`
		Singles     []struct {
			Block uint64 `xml:"origin_block,attr"`
			Data  uint64 `xml:"data_block,attr"`
		} `xml:"single_mapping"`
		Ranges []struct {
			Begin  uint64 `xml:"origin_begin,attr"`
			Data   uint64 `xml:"data_begin,attr"`
			Length uint64 `xml:"length,attr"`
		} `xml:"range_mapping"`
	} `xml:"device"`
}

// dumped returns the model of a pool that thin_dump has printed.
func dumped(t testing.TB, text []byte) *model {
	t.Helper()
	var d dump
	if err := xml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	m := &model{time: d.Time, dataTotal: d.DataBlocks, devices: map[devmapper.DeviceID]*modelDevice{}}
	for _, dev := range d.Devices {
		blocks := map[uint64]uint64{}
		for _, s := range dev.Singles {
			blocks[s.Block] = s.Data
		}
		for _, r := range dev.Ranges {
			for i := range r.Length {
				blocks[r.Begin+i] = r.Data + i
			}
		}
		m.devices[dev.ID] = &modelDevice{
			details: Device{dev.ID, dev.Mapped, dev.Transaction, dev.Created, dev.Snapshotted},
			blocks:  blocks,
		}
	}
	return m
}

// thinLs returns how many blocks each device has for itself, by thin_ls.
func thinLs(t testing.TB, path string) map[devmapper.DeviceID]Blocks {
	t.Helper()
	exclusive := map[devmapper.DeviceID]Blocks{}
	lines := bytes.NewReader(run(t, "thin_ls", "--no-headers", "-o", "DEV,EXCLUSIVE_BLOCKS", path))
	for {
		var id devmapper.DeviceID
		var blocks Blocks
		if n, _ := fmt.Fscan(lines, &id, &blocks); n < 2 {
			return exclusive
		}
		exclusive[id] = blocks
	}
}

// thinDelta returns the differences of two devices, by thin_delta.
func thinDelta(t testing.TB, path string, from, to devmapper.DeviceID, args ...string) map[Change]map[uint64]bool {
	t.Helper()
	args = append(args, "--thin1", fmt.Sprint(from), "--thin2", fmt.Sprint(to), path)
	type ranges []struct {
		Begin  uint64 `xml:"begin,attr"`
		Length uint64 `xml:"length,attr"`
	}
	var out struct {
		Diff struct {
			Different ranges `xml:"different"`
			LeftOnly  ranges `xml:"left_only"`
			RightOnly ranges `xml:"right_only"`
		} `xml:"diff"`
	}
	if err := xml.Unmarshal(run(t, "thin_delta", args...), &out); err != nil {
		t.Fatal(err)
	}
	blocks := map[Change]map[uint64]bool{}
	for change, list := range map[Change]ranges{Rewritten: out.Diff.Different, Removed: out.Diff.LeftOnly, Added: out.Diff.RightOnly} {
		for _, r := range list {
			addBlocks(blocks, change, r.Begin, r.Length)
		}
	}
	return blocks
}

func addBlocks(blocks map[Change]map[uint64]bool, change Change, begin, length uint64) {
	if blocks[change] == nil {
		blocks[change] = map[uint64]bool{}
	}
	for i := range length {
		blocks[change][begin+i] = true
	}
}

// sameDelta fails the test if thin_delta found other differences.
func sameDelta(t testing.TB, have []Difference, want map[Change]map[uint64]bool) {
	t.Helper()
	blocks := map[Change]map[uint64]bool{}
	for _, d := range have {
		addBlocks(blocks, d.Change, uint64(d.Begin), uint64(d.Length))
	}
	if !maps.EqualFunc(blocks, want, maps.Equal) {
		t.Fatalf("delta is %v, by thin_delta %v", have, want)
	}
}
