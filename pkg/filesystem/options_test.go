package filesystem

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCompile(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	for _, test := range []struct {
		name    string
		options MountOptions
		t       Type
		flags   uintptr
		data    string
	}{
		{"nothing", MountOptions{}, Ext4, 0, "errors=remount-ro"},
		{"nothing", MountOptions{}, XFS, 0, "nouuid"},
		{"its defaults said", MountOptions{Options: []string{"nouuid"}}, XFS, 0, "nouuid"},
		{"its defaults said", MountOptions{Options: []string{"errors=panic"}}, Ext4, 0, "errors=panic"},
		{"options and no nouuid", MountOptions{Options: []string{"discard"}}, Ext4, 0, "discard,errors=remount-ro"},
		{"flags", MountOptions{Options: []string{"nodev,nosuid", "noexec", "defaults"}}, XFS,
			unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC, "nouuid"},
		{"flags and data", MountOptions{Options: []string{"noatime,logbufs=8", "sync,,swidth=1"}}, XFS,
			unix.MS_NOATIME | unix.MS_SYNCHRONOUS, "logbufs=8,swidth=1,nouuid"},
		{"the last one wins", MountOptions{Options: []string{"ro,nodev,sync", "rw,dev,async"}}, XFS, 0, "nouuid"},
		{"one atime", MountOptions{Options: []string{"strictatime,relatime,noatime"}}, XFS, unix.MS_NOATIME, "nouuid"},
		{"no atime", MountOptions{Options: []string{"noatime,atime,lazytime,nolazytime"}}, XFS, 0, "nouuid"},
		{"read-only", MountOptions{Options: []string{"rw"}, ReadOnly: true}, XFS, unix.MS_RDONLY, "nouuid"},
		{"for mount(8)", MountOptions{Options: []string{"_netdev,nofail,x-systemd.automount,comment=x,noauto"}}, XFS, 0, "nouuid"},
		{"label", MountOptions{Label: label}, XFS, 0, `context="` + label + `",nouuid`},
		{"label in words", MountOptions{Options: []string{`context="` + label + `",nodev`}}, XFS,
			unix.MS_NODEV, `context="` + label + `",nouuid`},
	} {
		call, err := test.options.compile(test.t)
		if err != nil || call.flags != test.flags || call.String() != test.data {
			t.Errorf("%s on %s: flags %#x, data %q, %v; want %#x, %q",
				test.name, test.t, call.flags, call, err, test.flags, test.data)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, o := range []MountOptions{
		{Options: []string{"bind"}},
		{Options: []string{"nodev,remount"}},
		{Options: []string{"rshared"}},
		{Options: []string{strings.Repeat("x", 4096)}},
		{Label: `a",user_xattr,b="`},
	} {
		if call, err := o.compile(Ext4); err == nil {
			t.Errorf("%.40v: %.40s", o, call)
		}
	}
}

// What is not a flag word reaches the kernel in its order, whatever it is.
func FuzzOptions(f *testing.F) {
	f.Add("ro,a=1,,b", true)
	f.Add(`context="a,b",c`, false)
	f.Add(`",`, false)
	f.Fuzz(func(t *testing.T, s string, readOnly bool) {
		words := splitOptions(s)
		if again := splitOptions(strings.Join(words, ",")); !slices.Equal(again, words) {
			t.Fatalf("%q are %q when joined", words, again)
		}
		c, err := MountOptions{Options: []string{s}, ReadOnly: readOnly}.compile(XFS)
		if err == nil && (!slices.Contains(c.data, "nouuid") || readOnly != (c.flags&unix.MS_RDONLY != 0) &&
			!slices.Contains(words, "ro")) {
			t.Fatalf("%q: flags %#x, data %q", s, c.flags, c.data)
		}
	})
}
