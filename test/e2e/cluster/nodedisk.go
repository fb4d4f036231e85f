package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeDisk is where a node has its first disk.
const nodeDisk = "/run/node-disk"

// kept are the folders of a node that last from one boot to the next. They are those
// that a node with a root file system of its own would keep, and that Kubernetes or the driver
// writes to. What CNI notes of pods' addresses is not among them: after a boot there are no pods
// that had them.
var kept = []string{
	"/var/lib/containerd",
	"/var/lib/kubelet",
	"/var/lib/csi-dmthin",
	"/var/log/pods",
	"/var/log/containers",
}

// disks returns the block devices that box gave this node.
func disks() []string { return strings.Fields(os.Getenv("BOX_DISKS")) }

// mountNodeDisk puts the first disk below the folders that last.
func mountNodeDisk() error {
	if len(disks()) == 0 {
		return errors.New("no disk in BOX_DISKS")
	}
	if err := os.MkdirAll(nodeDisk, 0o755); err != nil {
		return err
	}
	// The inode tables are zeros already, as a sparse file is.
	if err := unix.Mount(disks()[0], nodeDisk, "ext4", 0, "noinit_itable"); err != nil {
		return fmt.Errorf("mount %s: %w", disks()[0], err)
	}
	for _, folder := range kept {
		there := filepath.Join(nodeDisk, folder)
		if err := errors.Join(os.MkdirAll(there, 0o755), os.MkdirAll(folder, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(there, folder, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", folder, err)
		}
	}
	return nil
}

// unmountNodeDisk leaves the disk clean.
func unmountNodeDisk() error {
	for _, folder := range kept {
		if err := unix.Unmount(folder, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", folder, err)
		}
	}
	if err := unix.Unmount(nodeDisk, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", nodeDisk, err)
	}
	return nil
}

// nameDisks gives the disks for pools the names that udev would.
func nameDisks() error {
	const folder = "/dev/disk/by-id"
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var errs []error
	for i, disk := range poolDisks {
		if 1+i < len(disks()) {
			errs = append(errs, os.Symlink(disks()[1+i], filepath.Join(folder, disk.name)))
		}
	}
	return errors.Join(errs...)
}

// poolDisks are the disks of a node beyond the first.
var poolDisks = []struct {
	name string
	size string // as box reads it
}{
	{"e2e-data", "8G"},
	{"e2e-metadata", "128M"},
}
