package main

import (
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

func TestHumanSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1 << 10: "1 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1 MiB",
		1 << 30: "1 GiB", 5 << 28: "1.3 GiB", 3 << 29: "1.5 GiB", 100 << 30: "100 GiB", 1 << 50: "1 PiB", 5 << 60: "5120 PiB",
	} {
		if got := humanSize(bytes); got != want {
			t.Errorf("%d bytes are %s, want %s", bytes, got, want)
		}
	}
}

func TestParseSizeReadsWhatHumanSizePrints(t *testing.T) {
	for _, bytes := range []int64{1, 1 << 10, 1536, 20 << 30, 3 << 29, 1 << 50} {
		if got, err := parseSize("size", humanSize(bytes)); err != nil || got != bytes {
			t.Errorf("%s is read as %d, error %v", humanSize(bytes), got, err)
		}
	}
	refused(t, second(parseSize("size", "big")), `size "big": want a size such as 20G`, deviceset.ErrInvalid.Error())
	refused(t, second(parseSize("size", "0")), `size "0": want more than nothing`)
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		used, total, keptFree uint64
		want                  string
	}{
		{0, 0, 0, "[????????????????????????]"},
		{0, 100, 0, "[........................]"},
		{1, 1 << 40, 0, "[#.......................]"},
		{50, 100, 10, "[############.........|..]"},
		{95, 100, 10, "[#####################|#.]"},
		{100, 100, 0, "[########################]"},
		{200, 100, 0, "[########################]"},
		{0, 100, 100, "[|.......................]"},
	} {
		if got := bar(c.used, c.total, c.keptFree); got != c.want {
			t.Errorf("%d of %d with %d kept free: %s, want %s", c.used, c.total, c.keptFree, got, c.want)
		}
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		used, total uint64
		want        string
	}{{0, 0, "0%"}, {0, 9, "0%"}, {1, 1000, "<1%"}, {999, 1000, ">99%"}, {1, 2, "50%"}, {7, 7, "100%"}} {
		if got := percent(c.used, c.total); got != c.want {
			t.Errorf("%d of %d: %s, want %s", c.used, c.total, got, c.want)
		}
	}
}
