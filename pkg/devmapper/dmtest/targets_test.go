package dmtest_test

import (
	"reflect"
	"testing"
	"time"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

var below = dm.Linear{Dev: dm.MakeDevNo(7, 1), Start: 8}

// targets are parameter lines with what they mean.
var targets = []struct {
	line   string
	target dm.Target
}{
	{"7:1 8 3600 0", dmtest.Well(below)},
	{"7:1 8 0 3600 1 error_writes", dmtest.Ill(below, dmtest.ErrorWrites)},
	{"7:1 8 250", dmtest.Delay{Linear: below, By: 250 * time.Millisecond}},
	{"7:1 7:2", dmtest.LogWrites{Dev: below.Dev, Log: dm.MakeDevNo(7, 2)}},
	{"7:1 8 4096", dmtest.Dust{Linear: below, BlockSize: 8}},
}

func parse(targetType, line string) (dm.Target, error) {
	switch targetType {
	case dmtest.Flakey{}.TargetType():
		return dmtest.ParseFlakey(line)
	case dmtest.Delay{}.TargetType():
		return dmtest.ParseDelay(line)
	case dmtest.LogWrites{}.TargetType():
		return dmtest.ParseLogWrites(line)
	}
	return dmtest.ParseDust(line)
}

func TestTargetsPrintAndParse(t *testing.T) {
	for _, test := range targets {
		have, err := parse(test.target.TargetType(), test.line)
		if err != nil || !reflect.DeepEqual(have, test.target) {
			t.Errorf("%s %s parses as %+v, error %v", test.target.TargetType(), test.line, have, err)
		}
		if have := test.target.String(); have != test.line {
			t.Errorf("%s prints as %s, want %s", test.target.TargetType(), have, test.line)
		}
	}
}

func TestTargetsRefuse(t *testing.T) {
	for targetType, lines := range map[string][]string{
		"flakey":     {"", "7:1 8 1", "7:1 8 1 0 1", "7:1 8 1 0 2 one", "7:1 8 x 0", "/dev/sda 8 1 0"},
		"delay":      {"7:1 8", "7:1 8 9 10", "7:1 8 -1"},
		"log-writes": {"7:1", "7:1 7", "7:1 7:2 7:3"},
		"dust":       {"7:1 8", "7:1 8 half"},
	} {
		for _, line := range lines {
			if have, err := parse(targetType, line); err == nil {
				t.Errorf("%s %q parses as %+v", targetType, line, have)
			}
		}
	}
}

// FuzzParseTargets holds printing and parsing together.
func FuzzParseTargets(f *testing.F) {
	for _, test := range targets {
		f.Add(test.target.TargetType(), test.line)
	}
	f.Fuzz(func(t *testing.T, targetType, line string) {
		target, err := parse(targetType, line)
		if err != nil {
			return
		}
		if d, ok := target.(dmtest.Dust); ok && d.BlockSize.Bytes()%dm.SectorSize != 0 {
			return
		}
		again, err := parse(targetType, target.String())
		if err != nil || again.String() != target.String() {
			t.Errorf("%s %q parses as %+v, and that as %+v, error %v", targetType, line, target, again, err)
		}
	})
}

// The kernel takes each target as it is printed here, and prints it alike.
func TestKernelTargets(t *testing.T) {
	m := dmtest.RealMachine(t)
	dmtest.CheckLeftovers(t, m)
	for _, make := range []func(disk, log dm.DevNo) dm.Target{
		func(disk, _ dm.DevNo) dm.Target { return dmtest.Well(dm.Linear{Dev: disk}) },
		func(disk, _ dm.DevNo) dm.Target { return dmtest.Ill(dm.Linear{Dev: disk, Start: 8}, dmtest.DropWrites) },
		func(disk, _ dm.DevNo) dm.Target {
			return dmtest.Delay{Linear: dm.Linear{Dev: disk, Start: 8}, By: time.Millisecond}
		},
		func(disk, log dm.DevNo) dm.Target { return dmtest.LogWrites{Dev: disk, Log: log} },
		func(disk, _ dm.DevNo) dm.Target { return dmtest.Dust{Linear: dm.Linear{Dev: disk}, BlockSize: 8} },
	} {
		tellTarget(t, m, make)
	}
}

func tellTarget(t *testing.T, m dmtest.Machine, target func(disk, log dm.DevNo) dm.Target) {
	t.Helper()
	disk, log := newDisk(t, m), newDisk(t, m)
	want := target(disk.Dev(), log.Dev())
	if _, err := dm.GetTarget(m.Kernel(), want.TargetType()); err != nil && want.TargetType() == (dmtest.Dust{}).TargetType() {
		t.Log("this kernel, like Debian's, has no dust") // User-Mode Linux has
		return
	}
	d, err := dm.Activate(m.Kernel(), "dmtest-target", "", dm.Whole(1024, want))
	if err != nil {
		t.Error(err)
		return
	}
	reply, err := m.Kernel().Do(dm.Request{Command: dm.TableStatus, Flags: dm.StatusTable, Name: d.String()})
	if err != nil {
		t.Fatal(err)
	}
	have, err := parse(want.TargetType(), reply.Lines[0].Params)
	if err != nil || have.String() != want.String() {
		t.Errorf("the kernel prints %q, which is not %+v: %v", reply.Lines[0].Params, want, err)
	}
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
}

func newDisk(t *testing.T, m dmtest.Machine) dmtest.Disk {
	t.Helper()
	disk, err := m.NewDisk(4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	return disk
}
