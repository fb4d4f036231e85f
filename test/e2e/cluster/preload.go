package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// diskForm changes when a node's disk of the same images does.
const diskForm = "2"

// nodeDiskSize is sparse.
const nodeDiskSize = 16 << 30

// A preload is what the box that fills the disk is told.
type preload struct {
	Images []string
	Path   string // for PATH
}

// makeNodeDisk returns a file system that has the images unpacked already, which a
// node is too slow for to do it at each start.
func makeNodeDisk(ctx context.Context, box string, built programs, images []string) (string, error) {
	var keys []string
	for _, image := range images {
		keys = append(keys, filepath.Base(filepath.Dir(image)))
	}
	key := keyOf(slices.Concat([]string{diskForm, built.key("containerd")}, keys)...)
	dir, err := cached("node", key, func(dir string) error {
		s := newSteps()
		disk := filepath.Join(dir, "disk")
		if err := makeExt4(ctx, disk); err != nil {
			return err
		}
		plan := Plan{Programs: built.folders()}
		order, err := json.Marshal(preload{images, plan.path()})
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		if err := runQuietly(exec.CommandContext(ctx, box, "-kernel", "uml", "-mem", "4G", "-timeout", "10m",
			"-disk", disk, self, "preload", string(order))); err != nil {
			return err
		}
		s.done("unpacked %d images for the nodes, once", len(images))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("a node's disk: %w", err)
	}
	return filepath.Join(dir, "disk"), nil
}

func makeExt4(ctx context.Context, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, nodeDiskSize); err != nil {
		return err
	}
	return runQuietly(exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", file))
}

// bePreloader is the command of that box.
func bePreloader(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	var order preload
	if err := json.Unmarshal([]byte(args[0]), &order); err != nil {
		return err
	}
	os.Setenv("PATH", order.Path)
	if err := mountNodeDisk(); err != nil {
		return err
	}
	if err := writeContainerdConfig(); err != nil {
		return err
	}
	log, err := os.Create("/run/containerd.log")
	if err != nil {
		return err
	}
	containerd := exec.Command("containerd", "--config", containerdConfig)
	containerd.Stdout, containerd.Stderr = log, log
	if err := containerd.Start(); err != nil {
		return err
	}
	if err := waitForContainerd(ctx); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\n%s", err, said)
	}
	for _, image := range order.Images {
		if err := importImage(ctx, image); err != nil {
			return err
		}
	}
	if err := containerd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	_ = containerd.Wait() // its status is that of a process that was told to end
	return unmountNodeDisk()
}

// importImage unpacks the images of an archive. If containerd were to read it, and not
// ctr (-local), it would take three times as long here.
func importImage(ctx context.Context, archive string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return runQuietly(exec.CommandContext(ctx, "ctr", "--namespace", "k8s.io", "images", "import", "--local", archive))
}

func waitForContainerd(ctx context.Context) error {
	return poll(ctx, time.Minute, "containerd", func() error {
		return runQuietly(exec.CommandContext(ctx, "ctr", "version"))
	})
}
