package graphdriver

import "testing"

func TestHumanSize(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0: "0B", 999: "999B", 1000: "1kB", 65536: "65.54kB", 131072: "131.1kB", 104857600: "104.9MB",
		10737418240: "10.74GB", 107374182400: "107.4GB", 1 << 50: "1.126PB", 1<<64 - 1: "18.45EB",
	} {
		if have := humanSize(bytes); have != want {
			t.Errorf("%d: have %s, want %s", bytes, have, want)
		}
	}
}
