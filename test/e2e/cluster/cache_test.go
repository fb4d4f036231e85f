package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestKeyTellsInputsApart(t *testing.T) {
	seen := map[string][]string{}
	for _, inputs := range [][]string{{}, {""}, {"", ""}, {"a", "bc"}, {"ab", "c"}, {"abc"}, {"1:a"}} {
		key := keyOf(inputs...)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one key", inputs, other)
		}
		seen[key] = inputs
	}
}

func TestCachedIsMadeOnceAndWhole(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("CSI_DMTHIN_CACHE", cache)
	made := 0
	fill := func(dir string) error {
		made++
		return os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
	}
	broken := errors.New("broken")
	if _, err := cached("x", "1", func(dir string) error { return errors.Join(fill(dir), broken) }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	for range 2 {
		dir, err := cached("x", "1", fill)
		if err != nil || !isFile(filepath.Join(dir, "file")) {
			t.Fatal(dir, err)
		}
	}
	if made != 2 { // the broken one, and one
		t.Errorf("made %d times", made)
	}
}

func TestCacheKeepsOneKey(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("CSI_DMTHIN_CACHE", cache)
	killed := filepath.Join(cache, "x", unfinished+"1234") // what a kill leaves
	if err := os.MkdirAll(killed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"1", "2"} {
		if _, err := cached("x", key, func(string) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(cache, "x", "*"))
	if err != nil || len(left) != 2 { // 2, and the lock
		t.Error(left, err)
	}
}
