package filesystem

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func scan(t *testing.T, image []byte) Traces {
	t.Helper()
	traces, err := Scan(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return traces
}

// Every mark is seen, alone, on disks whose sizes are more or less round.
func TestScanSeesMarks(t *testing.T) {
	for _, size := range []int64{mib, 2*mib - 512, 2*mib + 9*4096 + 512} {
		image := make([]byte, size)
		for _, m := range marks {
			want := Signature{m.name, m.at(size)}
			place := image[want.Offset:][:len(m.magic)]
			copy(place, m.magic)
			traces := scan(t, image)
			clear(place)
			if len(traces.Signatures) != 1 || traces.Signatures[0] != want || traces.OtherData || traces.Blank() {
				t.Errorf("%d bytes: %s, want %s at byte %d", size, traces, want.Name, want.Offset)
			}
		}
	}
}

func TestScan(t *testing.T) {
	const size = 4 * mib
	partition := func(status, kind string) string {
		return status + "\x00\x00\x00" + kind + strings.Repeat("\x00", 59) + "\x55\xaa"
	}
	for name, test := range map[string]struct {
		image []byte
		want  string
	}{
		"blank":            {make([]byte, size), "blank"},
		"behind the edge":  {with(size, mib, "x"), "blank"},
		"in the edge":      {with(size, mib-1, "x"), "unknown data"},
		"in the last edge": {with(size, size-mib, "x"), "unknown data"},
		"MBR":              {with(size, 446, partition("\x80", "\x83")), "MBR partition table at byte 510"},
		"no partition":     {with(size, 446, partition("\x80", "\x00")), "boot sector at byte 510"},
		"no table":         {with(size, 446, partition("\x33", "\x83")), "boot sector at byte 510"},
		"FAT": {both(with(size, 82, "FAT32   "), with(size, 510, "\x55\xaa")),
			"vfat file system at byte 82"},
		"ZFS":                {with(size, 128<<10+2048, "\x0c\xb1\xba\x00\x00\x00\x00\x00"), "ZFS pool member at byte 133120"},
		"ZFS from elsewhere": {with(size, 384<<10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"), "ZFS pool member at byte 393216"},
		"ZFS, third label":   {with(size, 3712<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"), "ZFS pool member at byte 3801088"},
		"ZFS, last label":    {with(size+512, 4064<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"), "ZFS pool member at byte 4161536"},
		"xfs":                {anXFS(size, nil), "xfs file system at byte 0"},
		"btrfs":              {aBtrfs(size, nil), "btrfs file system at byte 65536"},
		"two": {both(anXFS(size, nil), anExt(size, nil)),
			"xfs file system at byte 0, ext4 file system at byte 1024"},
		"more than two": {both(anExt(size, nil), both(with(size, 512, "EFI PART"), with(size, size-512, "EFI PART"))),
			"ext4 file system at byte 1024, GPT partition table at byte 512, GPT backup partition table at byte 4193792"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := scan(t, test.image).String(); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	damaged := flip(anExt(size, nil), extOffset+extUUID)
	if got := scan(t, damaged).String(); !strings.HasPrefix(got, "damaged file system (ext4: checksum ") {
		t.Error(got)
	}
}

// What the tools write is recognised.
func TestScanTools(t *testing.T) {
	names := func(t *testing.T, image string) (names []string) {
		traces, err := ScanDevice(image)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range traces.Signatures {
			names = append(names, s.Name)
		}
		return names
	}
	for _, test := range []struct {
		tool  string
		args  []string
		input string
		want  []string
	}{
		{tool: "mkswap", want: []string{"swap space"}},
		{tool: "mkswap", args: []string{"--pagesize", "65536"}, want: []string{"swap space"}},
		{tool: "sfdisk", args: []string{"-q"}, input: "label: gpt\n,\n",
			want: []string{"GPT partition table", "GPT backup partition table", "MBR partition table"}},
		{tool: "sfdisk", args: []string{"-q"}, input: "label: dos\n,\n", want: []string{"MBR partition table"}},
		{tool: "mkfs.ext4", args: []string{"-q"}, want: []string{"ext4 file system"}},
		{tool: "mkfs.xfs", args: []string{"-q"}, want: []string{"xfs file system"}},
	} {
		t.Run(fmt.Sprint(test.tool, test.args, test.input), func(t *testing.T) {
			image := imageFile(t, 300*mib)
			tool(t, strings.NewReader(test.input), test.tool, append(test.args, image)...)
			if got := names(t, image); !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// A thin pool's metadata as the kernel wrote it.
func TestScanThinMetadata(t *testing.T) {
	needTool(t, "thin_restore")
	image := imageFile(t, 4*mib)
	dump := image + ".xml"
	xml := `<superblock uuid="" time="0" transaction="0" version="2" data_block_size="128" nr_data_blocks="8"></superblock>`
	if err := os.WriteFile(dump, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, nil, "thin_restore", "-i", dump, "-o", image)
	if traces, err := ScanDevice(image); err != nil || traces.String() != "thin pool metadata at byte 32" {
		t.Error(traces, err)
	}
}
