package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const debianRelease = "bookworm"

// makeBase makes a Debian with nothing added, which is what the driver's image is
// built upon, and what the pods of tests run: sh, dd, mount, sha256sum, getent.
func makeBase(ctx context.Context) (string, error) {
	i := containerImage{Names: []string{baseImage, testImage}, Cmd: []string{"/bin/sh"}}
	return cachedArchive("debian", keyOf(archiveForm, debianRelease, "minbase"), i, func(layer string) error {
		s := newSteps()
		s.done("making an image of Debian, once")
		root := filepath.Join(filepath.Dir(layer), "root")
		if err := debootstrap(ctx, root); err != nil {
			return err
		}
		defer os.RemoveAll(root)
		if err := runQuietly(exec.CommandContext(ctx, "tar", "--create", "--file="+layer, "--directory="+root,
			"--sort=name", "--numeric-owner", "--mtime=@0",
			"--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*",
			"--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./var/log/*.log",
			".")); err != nil {
			return err
		}
		s.done("made an image of Debian")
		return nil
	})
}

func debootstrap(ctx context.Context, root string) error {
	mirror, err := debianMirror(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", debianRelease, root, mirror)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return runQuietly(cmd)
}

// debianMirror returns where this machine has its own packages from.
func debianMirror(ctx context.Context) (string, error) {
	list, err := output(ctx, "/", "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(list) {
		if uri, codename, _ := strings.Cut(strings.TrimSpace(line), " "); codename == debianRelease {
			return uri, nil
		}
	}
	return "", fmt.Errorf("this machine's package sources have no Debian %s", debianRelease)
}
