package filesystem

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const uuid = "4f3c2b1a-0102-4304-8506-0708090a0b0c"

func TestParseType(t *testing.T) {
	for _, want := range []Type{Ext4, XFS} {
		if got, err := ParseType(string(want)); err != nil || got != want {
			t.Error(want, got, err)
		}
	}
	for s, words := range map[string]string{"btrfs": "Linux 6.7", "zfs": "use ext4 or xfs", "": `""`} {
		if got, err := ParseType(s); err == nil || !strings.Contains(err.Error(), words) {
			t.Error(s, got, err)
		}
	}
}

func TestMakeArguments(t *testing.T) {
	for _, test := range []struct {
		t    Type
		o    MakeOptions
		want string
	}{
		{Ext4, MakeOptions{}, "-F -m 0 -E nodiscard /dev/x"},
		{Ext4, MakeOptions{Prezeroed: true, UUID: uuid, Label: "l", Args: []string{"-m", "1"}},
			"-F -m 0 -E nodiscard,assume_storage_prezeroed=1 -U " + uuid + " -L l -m 1 /dev/x"},
		{Ext4, MakeOptions{Args: []string{"-b", "1024", "-E", "stride=4", "-q", "-Eroot_owner=1:1"}},
			"-F -m 0 -E nodiscard,stride=4,root_owner=1:1 -b 1024 -q /dev/x"},
		{Ext4, MakeOptions{Args: []string{"-E"}}, "-F -m 0 -E nodiscard /dev/x"},
		{XFS, MakeOptions{Prezeroed: true}, "-K /dev/x"},
		{XFS, MakeOptions{Overwrite: true, UUID: uuid, Label: "l", Args: []string{"-n", "ftype=1"}},
			"-K -f -m uuid=" + uuid + " -L l -n ftype=1 /dev/x"},
	} {
		if got := strings.Join(test.o.arguments("/dev/x", test.t), " "); got != test.want {
			t.Errorf("mkfs.%s %s\nwant      %s", test.t, got, test.want)
		}
	}
}

// What Make makes, Probe sees.
func TestMake(t *testing.T) {
	for _, test := range []struct {
		t    Type
		size int64
		o    MakeOptions
	}{
		{Ext4, 16 * mib, MakeOptions{UUID: uuid, Label: "sixteen bytes in"}},
		{Ext4, 128 << 10, MakeOptions{UUID: uuid}},
		{Ext4, 16 * mib, MakeOptions{UUID: uuid, Prezeroed: true}},
		{Ext4, 16 * mib, MakeOptions{UUID: uuid, Args: []string{"-t", "ext2"}}},
		{Ext4, 16 * mib, MakeOptions{UUID: uuid, Args: []string{"-t", "ext3", "-b", "1024"}}},
		{Ext4, 64 * mib, MakeOptions{UUID: uuid, Args: []string{"-O", "bigalloc,64bit"}}},
		{XFS, 300 * mib, MakeOptions{UUID: uuid, Label: "twelve bytes"}},
		{XFS, 300 * mib, MakeOptions{UUID: uuid, Args: []string{"-m", "crc=0,finobt=0,reflink=0,bigtime=0,inobtcount=0"}}},
		{XFS, 300 * mib, MakeOptions{UUID: uuid, Args: []string{"-s", "size=4096"}}},
	} {
		t.Run(strings.Join(test.o.arguments(string(test.t), test.t), " "), func(t *testing.T) {
			t.Parallel()
			needTool(t, "mkfs."+string(test.t))
			image := imageFile(t, test.size)
			if err := Make(t.Context(), image, test.t, test.o); err != nil {
				t.Fatal(err)
			}
			want := Info{Type: test.t, UUID: uuid, Label: test.o.Label, Size: test.size}
			if info, err := ProbeDevice(image); err != nil || info != want {
				t.Errorf("%+v, %v; want %+v", info, err, want)
			}
		})
	}
}

// A device that reads as zeros gets less than one that might not: no zeros.
func TestMakePrezeroed(t *testing.T) {
	needTool(t, "mkfs.ext4")
	var used [2]int64
	for i, prezeroed := range []bool{false, true} {
		image := imageFile(t, 2<<30)
		args := []string{"-E", "lazy_itable_init=0"} // or the kernel writes the rest of the zeros later
		if err := Make(t.Context(), image, Ext4, MakeOptions{Prezeroed: prezeroed, Args: args}); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(image, &st); err != nil {
			t.Fatal(err)
		}
		used[i] = st.Blocks * 512
	}
	t.Logf("2 GiB: %d KiB written, %d KiB if prezeroed", used[0]>>10, used[1]>>10)
	if used[1]*10 > used[0] {
		t.Errorf("%d bytes, prezeroed %d", used[0], used[1])
	}
}

func TestMakeRefuses(t *testing.T) {
	full := imageFile(t, 300*mib)
	if err := os.WriteFile(full, anExt(8*mib, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		device string
		t      Type
		o      MakeOptions
		want   error
		words  string
	}{
		{"small xfs", imageFile(t, 300*mib-4096), XFS, MakeOptions{}, ErrTooSmall, "314572800"},
		{"a file system", full, Ext4, MakeOptions{}, ErrNotBlank, uuidByHand},
		{"what is no file system", tornImage(t), Ext4, MakeOptions{}, ErrNotBlank, "unknown data"},
		{"nothing there", "/nowhere", Ext4, MakeOptions{}, os.ErrNotExist, "make ext4 on /nowhere: "},
		{"btrfs", imageFile(t, 300*mib), Btrfs, MakeOptions{}, nil, "Linux 6.7"},
		{"long label", imageFile(t, 300*mib), Ext4, MakeOptions{Label: "seventeen letters"}, nil, "16 bytes"},
	} {
		err := Make(t.Context(), test.device, test.t, test.o)
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if info, err := ProbeDevice(full); err != nil || info.UUID != uuidByHand {
		t.Errorf("what was there became %+v, %v", info, err)
	}
}

func tornImage(t *testing.T) string {
	path := imageFile(t, mib)
	if err := os.WriteFile(path, with(mib, 70<<10, "x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMakeOverwrites(t *testing.T) {
	needTool(t, "mkfs.xfs")
	image := imageFile(t, 300*mib)
	for _, kind := range []Type{Ext4, XFS, XFS, Ext4} {
		if err := Make(t.Context(), image, kind, MakeOptions{Overwrite: true}); err != nil {
			t.Fatal(err)
		}
		if info, err := ProbeDevice(image); err != nil || info.Type != kind {
			t.Errorf("after mkfs.%s: %+v, %v", kind, info, err)
		}
	}
}

// The tool's own words are in the error.
func TestMakeTells(t *testing.T) {
	needTool(t, "mkfs.ext4")
	err := Make(t.Context(), imageFile(t, mib), Ext4, MakeOptions{Args: []string{"-b", "77"}})
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(err.Error(), "invalid block size") {
		t.Error(err)
	}
}

func TestRunIsKilled(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	start := time.Now()
	err := run(ctx, "sleep", "60")
	if err == nil || !strings.Contains(err.Error(), "enough") || time.Since(start) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestTail(t *testing.T) {
	var out tail
	for range 1000 {
		_, _ = out.Write([]byte("0/1\b\b\bdone \n"))
	}
	_, _ = out.Write([]byte("äfinal\twords\n"))
	if s := out.String(); len(out) != maxTail || !strings.HasSuffix(s, " äfinal words") || strings.ContainsAny(s, "\b\n") {
		t.Errorf("%q", s)
	}
}

// breakExt sets a field of an ext superblock with debugfs.
func breakExt(t *testing.T, device string, requests ...string) {
	t.Helper()
	for _, request := range requests {
		tool(t, nil, "debugfs", "-w", "-R", request, device)
	}
}

func TestCheck(t *testing.T) {
	needTool(t, "mkfs.ext4")
	image := imageFile(t, 16*mib)
	if err := Make(t.Context(), image, Ext4, MakeOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), image, Ext4); err != nil {
		t.Errorf("a new one: %v", err)
	}
	breakExt(t, image, "set_super_value state 3")
	if info, err := ProbeDevice(image); err != nil || !info.Dirty {
		t.Errorf("with the error flag: %+v, %v", info, err)
	}
	if err := Check(t.Context(), image, Ext4); err != nil {
		t.Errorf("with the error flag: %v", err)
	}
	if info, err := ProbeDevice(image); err != nil || info.Dirty {
		t.Errorf("after the check: %+v, %v", info, err)
	}

	// A root directory that is lost is not made anew without a question.
	breakExt(t, image, "mkdir a", "clri <2>", "set_super_value state 3")
	err := Check(t.Context(), image, Ext4)
	if !errors.Is(err, ErrNeedsRepair) || !strings.Contains(err.Error(), "e2fsck -f "+image) {
		t.Errorf("without a root: %v", err)
	}
	if err := Check(t.Context(), "/nowhere", Ext4); err == nil || errors.Is(err, ErrNeedsRepair) {
		t.Errorf("nothing there: %v", err)
	}
	if err := Check(t.Context(), "/nowhere", XFS); err != nil {
		t.Errorf("xfs: %v", err)
	}
}

func TestCheckWithoutTool(t *testing.T) {
	t.Setenv("PATH", "")
	if err := Check(t.Context(), "/nowhere", Ext4); !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
}

func TestOptionsOfMakeAreKept(t *testing.T) {
	args := []string{"-E", "stride=4", "-q"}
	MakeOptions{Args: args}.arguments("/dev/x", Ext4)
	if !slices.Equal(args, []string{"-E", "stride=4", "-q"}) {
		t.Error(args)
	}
}
