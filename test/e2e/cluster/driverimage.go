package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// driverImage is the command that leaves the driver's image as an archive: the image
// that users get, built by `make image`, upon the Debian of the tests.
func driverImage(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	file, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	tree, err := sourceTree()
	if err != nil {
		return err
	}
	s := newSteps()
	base, err := makeBase(ctx)
	if err != nil {
		return err
	}
	if err := pullBase(ctx, base); err != nil {
		return err
	}
	if err := runQuietly(buildahCommand(ctx, tree, "make", "image", "BASE="+baseImage, "IMAGE="+driverName)); err != nil {
		return err
	}
	// buildah adds to no archive.
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := runQuietly(buildahCommand(ctx, tree, "buildah", "push", driverName, "docker-archive:"+file+":"+driverName)); err != nil {
		return err
	}
	s.done("%s in %s", driverName, file)
	return nil
}

// driverName is how the tests call the driver's image.
const driverName = "ghcr.io/csi-dmthin/csi-dmthin:e2e"

// pullBase shows the base to buildah, which takes no time if it knows it.
func pullBase(ctx context.Context, archive string) error {
	if err := runQuietly(buildahCommand(ctx, "/", "buildah", "pull", "docker-archive:"+archive+":"+baseImage)); err != nil {
		return fmt.Errorf("%w (`tools/setup e2e` installs buildah)", err)
	}
	return nil
}

// buildahCommand is one with a buildah that needs no more of the kernel than to be root.
func buildahCommand(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "STORAGE_DRIVER=vfs")
	return cmd
}
