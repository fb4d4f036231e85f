package dmfault_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmfault"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmsim"
)

// tell makes three devices, by a kernel that the plan breaks, and stops at the
// first error that is not EIO.
func tell(k dm.Kernel) (errs []error) {
	for _, name := range []string{"a", "b", "c"} {
		_, err := dm.Create(k, name, "")
		errs = append(errs, err)
	}
	return errs
}

func exist(t *testing.T, k dm.Kernel) (names string) {
	t.Helper()
	devices, err := dm.List(k, "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		names += d.Name
	}
	return names
}

func TestModes(t *testing.T) {
	for _, test := range []struct {
		mode    dmfault.Mode
		want    string
		heard   [3]error
		crashed bool
	}{
		{dmfault.ErrorBefore, "ac", [3]error{nil, unix.EIO, nil}, false},
		{dmfault.ErrorAfter, "abc", [3]error{nil, unix.EIO, nil}, false},
		{dmfault.CrashBefore, "a", [3]error{nil, dmfault.ErrCrashed, dmfault.ErrCrashed}, true},
		{dmfault.CrashAfter, "ab", [3]error{nil, dmfault.ErrCrashed, dmfault.ErrCrashed}, true},
	} {
		t.Run(test.mode.String(), func(t *testing.T) {
			sim, plan := dmsim.New(), &dmfault.Plan{At: 1, Mode: test.mode}
			for i, err := range tell(dmfault.Wrap(sim, plan)) {
				if !errors.Is(err, test.heard[i]) {
					t.Errorf("request %d: error is %v, want %v", i, err, test.heard[i])
				}
			}
			if have := exist(t, sim); have != test.want {
				t.Errorf("devices are %q, want %q", have, test.want)
			}
			if plan.Hit() != "create device b" || plan.Crashed() != test.crashed {
				t.Errorf("hit %q, crashed %v", plan.Hit(), plan.Crashed())
			}
		})
	}
}

func TestPlanBeyondTheEnd(t *testing.T) {
	plan := &dmfault.Plan{At: 3}
	tell(dmfault.Wrap(dmsim.New(), plan))
	if plan.Hit() != "" {
		t.Errorf("hit %q", plan.Hit())
	}
}

func TestTrace(t *testing.T) {
	trace := dmfault.NewTrace(dmsim.New())
	d, err := dm.Activate(trace, "name", "uuid", dm.Whole(8, dm.Zero{}))
	if err != nil {
		t.Fatal(err)
	}
	_ = d.WhileSuspended(0, func() error { return nil })
	_, _ = dm.Create(trace, "name", "")
	want := `create device name uuid
load table name 0 8 zero 
resume name
table name
clear table name
suspend name
resume name
create device name: device or resource busy
`
	if have := trace.String(); have != want {
		t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}
