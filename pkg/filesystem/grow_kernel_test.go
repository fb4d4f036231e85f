package filesystem

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// What is left of a device may be too little for a group, and that is no error.
func TestKernelGrowRest(t *testing.T) {
	requireKernel(t)
	for _, test := range []struct {
		kind       Type
		size       int64
		rest, want int64
		args       []string
	}{
		{Ext4, 128 * mib, 512, 512, []string{"-b", "1024"}},
		{Ext4, 128 * mib, mib, 0, []string{"-b", "1024"}},
		{Ext4, 128 * mib, mib, mib, []string{"-b", "4096"}},
		{Ext4, 128 * mib, mib, mib, []string{"-b", "4096", "-O", "^has_journal"}},
		{Ext4, 128 * mib, 4 * mib, 4 * mib, []string{"-b", "4096"}}, // inodes may take it all
		{Ext4, 128 * mib, 9 * mib, 0, []string{"-b", "4096"}},
		{Ext4, 128 * mib, 9 * mib, 9 * mib, []string{"-b", "4096", "-I", "1024"}},
		{XFS, 450 * mib, 63 * 4096, 63 * 4096, nil},
		{XFS, 450 * mib, 64 * 4096, 0, nil},
	} {
		d := newDisk(t, minSizes[test.kind])
		if err := Make(t.Context(), d.device, test.kind, MakeOptions{Prezeroed: true, Args: test.args}); err != nil {
			t.Fatal(err)
		}
		target := mountIt(t, d, test.kind, MountOptions{})
		d.grow(t, test.size+test.rest)
		err := Grow(t.Context(), d.device, target, test.kind)
		if missing, _, lookErr := missingOf(d.device, target, test.kind); err != nil || lookErr != nil || missing != test.want {
			t.Errorf("%+v: %d bytes are missing, %v, %v", test, missing, err, lookErr)
		}
	}
}

// withTool puts a program before all others.
func withTool(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/"+name, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Success of ResizeFs is no proof: not where blkid sees nothing, and not where the
// tool has done nothing.
func TestKernelGrowInVain(t *testing.T) {
	eachType(t, func(t *testing.T, kind Type) {
		d := formatted(t, kind)
		target := mountIt(t, d, kind, MountOptions{})
		d.grow(t, 2*minSizes[kind])
		grower := map[Type]string{Ext4: "resize2fs", XFS: "xfs_growfs"}[kind]
		for name, script := range map[string]string{"blkid": "exit 2", grower: "exit 0"} {
			t.Run(name, func(t *testing.T) {
				withTool(t, name, script)
				err := Grow(t.Context(), d.device, target, kind)
				if err == nil || !strings.Contains(err.Error(), "bytes of the device are still not in it") {
					t.Errorf("not grown: %v", err)
				}
			})
		}
	})
}

// A tool ends with its context, and its last words are in the error.
func TestKernelGrowEnds(t *testing.T) {
	requireKernel(t)
	d := formatted(t, Ext4)
	target := mountIt(t, d, Ext4, MountOptions{})
	d.grow(t, 2*minSizes[Ext4])

	withTool(t, "resize2fs", "echo much; echo 'last words'; exit 3")
	if err := Grow(t.Context(), d.device, target, Ext4); err == nil || !strings.HasSuffix(err.Error(), "last words") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}

	withTool(t, "resize2fs", "exec sleep 60")
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	start := time.Now()
	if err := Grow(ctx, d.device, target, Ext4); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(start); took > toolGrace {
		t.Errorf("ended after %v", took)
	}
}
