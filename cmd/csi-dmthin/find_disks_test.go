package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindDisks(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a*b") // that is its name
	must0(t, os.WriteFile(odd, nil, 0o600))
	for _, options := range [][]string{
		nil,
		{"dm.datadev=/dev/x", "dm.metadatadev=/dev/y", "dm.fs=xfs"},
		{"dm.datadev=" + odd},
		{"dm.mountopt=*", "dm.thinpooldev=a*"},
	} {
		found, err := findDisks(options)
		must0(t, err)
		if strings.Join(found, " ") != strings.Join(options, " ") {
			t.Errorf("%q becomes %q", options, found)
		}
	}
	for pattern, says := range map[string]string{
		filepath.Join(dir, "nvme-*"): "no block device matches " + dir,
		filepath.Join(dir, "*"):      "no block device matches " + dir, // a file is none
		filepath.Join(dir, "[a"):     "syntax error",
	} {
		_, err := findDisks([]string{"dm.datadev=/dev/x", "dm.metadatadev=" + pattern})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), "metadatadev: ") {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}
