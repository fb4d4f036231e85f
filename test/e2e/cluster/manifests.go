package main

import (
	"context"
	"embed"
	"os"
	"path/filepath"
	"time"
)

//go:embed manifests
var manifests embed.FS

// applyManifests sets up what a cluster has besides its machinery.
func applyManifests(ctx context.Context, p *Plan) error {
	folder := filepath.Join(home, "manifests")
	if err := os.CopyFS(home, manifests); err != nil {
		return err
	}
	published, err := filepath.Glob(filepath.Join(p.Manifests, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range published {
		if err := copyFile(filepath.Join(folder, filepath.Base(file)), file, 0o644); err != nil {
			return err
		}
	}
	// The default namespace appears when the controllers are up.
	return poll(ctx, 30*time.Second, "manifests", func() error {
		return inNetwork(func() error { return runQuietly(kubectl(ctx, p, "apply", "--server-side", "-f", folder)) })
	})
}

// systemPods are the Deployments that a cluster has from the start.
var systemPods = []string{"coredns", "snapshot-controller"}
