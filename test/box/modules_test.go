package main

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestModulesLoadAfterWhatTheyNeed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "modules.builtin"), []byte("kernel/lib/libcrc32c.ko\n"))
	write(t, filepath.Join(dir, "modules.dep"), []byte(
		"kernel/md/dm-thin-pool.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko kernel/lib/libcrc32c.ko\n"+
			"kernel/md/dm-bufio.ko: kernel/md/dm-mod.ko\n"+
			"kernel/md/dm-mod.ko:\n"+
			"kernel/block/loop.ko.xz:\n"))
	tree, err := readModuleTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tree.resolve("dm_thin_pool", "libcrc32c", "loop", "dm-mod")
	want := []string{"kernel/md/dm-mod.ko", "kernel/md/dm-bufio.ko", "kernel/md/dm-thin-pool.ko", "kernel/block/loop.ko.xz"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := tree.resolve("dm-dust"); err == nil {
		t.Error("a module that is not there is not missed")
	}
}
