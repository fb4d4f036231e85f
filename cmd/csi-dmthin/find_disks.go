package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// findDisks returns options in which each path of a disk that is a pattern is the path
// of the one device that it matches now.
func findDisks(options []string) ([]string, error) {
	found, disks := make([]string, len(options)), map[dm.DevNo]string{}
	for i, option := range options {
		found[i] = option
		key, pattern, _ := strings.Cut(option, "=")
		if key != "dm.datadev" && key != "dm.metadatadev" {
			continue
		}
		path, err := findDisk(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.TrimPrefix(key, "dm."), err)
		}
		found[i] = key + "=" + path
		if dev, ok := blockDevice(path); ok {
			if other, twice := disks[dev]; twice {
				return nil, fmt.Errorf("datadev and metadatadev are one device, %s: %s and %s", dev, other, path)
			}
			disks[dev] = path
		}
	}
	return found, nil
}

// findDisk returns the path of the one device that matches a pattern (filepath.Match),
// of several paths of it the first. What is no pattern, or the path of something, is
// itself.
func findDisk(pattern string) (string, error) {
	if _, err := os.Lstat(pattern); err == nil || !strings.ContainsAny(pattern, `*?[\`) {
		return pattern, nil
	}
	matches, err := filepath.Glob(pattern) // sorted
	if err != nil {
		return "", fmt.Errorf("%s: %w", pattern, err)
	}
	var devices []string
	known := map[dm.DevNo]bool{}
	for _, path := range matches {
		if dev, ok := blockDevice(path); ok && !known[dev] {
			known[dev] = true
			devices = append(devices, path)
		}
	}
	switch len(devices) {
	case 0:
		return "", fmt.Errorf("no block device matches %s", pattern)
	case 1:
		return devices[0], nil
	}
	return "", fmt.Errorf("%s matches %d devices, and must match one: %s", pattern, len(devices), strings.Join(devices, ", "))
}

// blockDevice returns the number of the block device at a path, if there is one.
func blockDevice(path string) (dm.DevNo, bool) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return dm.DevNo(st.Rdev), err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
}
