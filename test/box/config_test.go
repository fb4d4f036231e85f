package main

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	environment := map[string]string{
		"BOX": "smp", "BOX_MEM": "512M", "BOX_TIMEOUT": "1m", "BOX_DISKS": "a b:1G", "BOX_OUT": "/out",
	}
	getenv := func(name string) string { return environment[name] }
	for _, c := range []struct {
		args []string
		want Config
	}{
		{[]string{"test", "-v"}, Config{
			Kernel: "smp", Memory: "512M", CPUs: 2, Timeout: time.Minute, Out: "/out",
			Disks:   []Disk{{File: "a"}, {File: "b", Size: 1 << 30}},
			Command: []string{"test", "-v"},
		}},
		{[]string{"-kernel", "uml", "-mem", "1G", "-cpus=4", "-timeout", "2s", "-disk", "c", "-out", "/x", "test"}, Config{
			Kernel: "uml", Memory: "1G", CPUs: 4, Timeout: 2 * time.Second, Out: "/x",
			Disks:   []Disk{{File: "c"}},
			Command: []string{"test"},
		}},
	} {
		got, err := parseConfig(c.args, getenv)
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%v: %+v, %v", c.args, got, err)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"-kernel", "hurd", "true"},
		{"-mem", "2 GB", "true"},
		{"-cpus", "x", "true"},
		{"-timeout", "10", "true"},
		{"-disk", "file:big", "true"},
		{"-kernel", "smp", "-tap", "tap0", "true"},
	} {
		if _, err := parseConfig(args, func(string) string { return "" }); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

func TestDisks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	if _, err := openDisks([]Disk{{File: file}}); err == nil {
		t.Error("a disk of no size is made")
	}
	disks, err := openDisks([]Disk{{File: file, Size: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDisks([]Disk{{File: file}}); err == nil {
		t.Error("two boxes have one disk")
	}
	disks.close()
	disks, err = openDisks([]Disk{{File: file, Size: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer disks.close()
	if info, err := disks[0].Stat(); err != nil || info.Size() != 1<<20 {
		t.Errorf("the disk that was there has now %d bytes, %v", info.Size(), err)
	}
}

func TestReleasesCompareByNumber(t *testing.T) {
	if got, want := numbers("/boot/vmlinuz-6.1.0-56-amd64"), []int{6, 1, 0, 56, 64}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}
