package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const (
	pauseImage = "localhost/pause:1"
	baseImage  = "localhost/debian:bookworm-slim"
	testImage  = "localhost/e2e:1"
)

// programImages are images of one program of a component each, under the names that
// upstream gives them: what refers to those needs no change.
var programImages = []struct{ component, program, name string }{
	{"coredns", "coredns", "registry.k8s.io/coredns/coredns:v1.15.0"},
	{"sidecars", "csi-provisioner", "registry.k8s.io/sig-storage/csi-provisioner:v6.4.0"},
	{"sidecars", "csi-resizer", "registry.k8s.io/sig-storage/csi-resizer:v2.3.0"},
	{"sidecars", "csi-snapshotter", "registry.k8s.io/sig-storage/csi-snapshotter:v8.7.0"},
	{"sidecars", "snapshot-controller", "registry.k8s.io/sig-storage/snapshot-controller:v8.7.0"},
}

// archiveForm changes when an archive of the same inputs does.
const archiveForm = "1"

// makeImages returns the archives of the images that every node has.
func makeImages(ctx context.Context, tree string, built programs) (archives []string, err error) {
	add := func(archive string, err error) error {
		archives = append(archives, archive)
		return err
	}
	if err := add(makePause(ctx, tree)); err != nil {
		return nil, fmt.Errorf("pause image: %w", err)
	}
	if err := add(makeBase(ctx)); err != nil {
		return nil, fmt.Errorf("Debian image: %w", err)
	}
	for _, i := range programImages {
		program := filepath.Join(built[i.component], i.program)
		key := keyOf(archiveForm, built.key(i.component), i.name)
		if err := add(makeProgramImage(i.program, key, i.name, program)); err != nil {
			return nil, fmt.Errorf("image %s: %w", i.name, err)
		}
	}
	return archives, nil
}

// cachedArchive returns the archive of an image, whose layer write writes.
func cachedArchive(name, key string, i containerImage, write func(layer string) error) (string, error) {
	dir, err := cached(filepath.Join("images", name), key, func(dir string) error {
		layer := filepath.Join(dir, "layer.tar")
		if err := write(layer); err != nil {
			return err
		}
		if err := i.writeArchive(filepath.Join(dir, "image.tar"), layer); err != nil {
			return err
		}
		return os.Remove(layer)
	})
	return filepath.Join(dir, "image.tar"), err
}

func makeProgramImage(name, key, image, program string) (string, error) {
	i := containerImage{Names: []string{image}, Entrypoint: []string{"/" + filepath.Base(program)}}
	return cachedArchive(name, key, i, func(layer string) error { return writeProgramLayer(layer, program) })
}

// makePause makes the image of what holds a pod together.
func makePause(ctx context.Context, tree string) (string, error) {
	folder := filepath.Join(tree, "test/e2e/cluster/pause")
	compiler, err := output(ctx, folder, "go", "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	key, err := keyOfFiles(archiveForm+compiler, filepath.Join(folder, "main.go"))
	if err != nil {
		return "", err
	}
	i := containerImage{Names: []string{pauseImage}, Entrypoint: []string{"/pause"}}
	return cachedArchive("pause", key, i, func(layer string) error {
		program := filepath.Join(filepath.Dir(layer), "pause")
		if err := goBuild(ctx, folder, "-s -w", program, "."); err != nil {
			return err
		}
		defer os.Remove(program)
		return writeProgramLayer(layer, program)
	})
}
