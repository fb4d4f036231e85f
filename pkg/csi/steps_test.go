package csi

import "testing"

func TestCapacityInSteps(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, test := range []struct{ pool, room, want int64 }{
		{20 * gib, 20*gib - 1, 20352 * mib}, // in steps of 192 MiB: a hundredth is 204.8
		{20 * gib, 3 * gib, 3 * gib},
		{20 * gib, 191 * mib, 0},
		{4 * gib, gib + 63*mib, gib},
		{4 * gib, 64*mib - 1, 0},
		{32 * mib, 32 * mib, 0},
		{1024 * gib, 512 * gib, 521600 * mib}, // of 10 432 MiB: a hundredth is 10 485.76
		{1024 * gib, 2048 * gib, 2096832 * mib},
		{0, 0, 0},
	} {
		if have := inSteps(test.room, test.pool); have != test.want {
			t.Errorf("room %d of a pool of %d is told as %d, want %d", test.room, test.pool, have, test.want)
		}
	}
}
