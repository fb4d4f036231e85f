package graphtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a store as Podman does.
func open(t *testing.T, root, name string, o []string) storage.Store {
	t.Helper()
	store, err := storage.GetStore(storage.StoreOptions{
		GraphRoot: filepath.Join(root, "graph"), RunRoot: filepath.Join(root, "run"),
		GraphDriverName: name, GraphDriverOptions: o,
	})
	must(t, err)
	return store
}

func closeStore(t *testing.T, s storage.Store) {
	t.Helper()
	_, err := s.Shutdown(false)
	must(t, err)
	s.Free()
}

// An image is stored, a container runs on it, and both outlive the store's process.
func TestKernelStore(t *testing.T) {
	name, o := ready(t)
	root := t.TempDir()
	s := open(t, root, name, o)
	content := t.TempDir()
	must(t, os.WriteFile(filepath.Join(content, "file"), []byte("image"), 0o600))
	tar, err := archive.Tar(content, archive.Uncompressed)
	must(t, err)
	layer, _, err := s.PutLayer("", "", nil, "", false, nil, tar)
	must(t, err)
	image, err := s.CreateImage("", []string{"image"}, layer.ID, "", nil)
	must(t, err)
	container, err := s.CreateContainer("", []string{"container"}, image.ID, "", "", nil)
	must(t, err)
	dir, err := s.Mount(container.ID, "")
	must(t, err)
	reads(t, dir, "image")
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("container"), 0o600))
	changes, err := s.Changes("", container.LayerID)
	must(t, err)
	if len(changes) != 1 || changes[0].String() != "C /file" {
		t.Errorf("changes are %v", changes)
	}
	if _, err := s.Unmount(container.ID, false); err != nil {
		t.Fatal(err)
	}
	size, err := s.ContainerSize(container.ID)
	must(t, err)
	if size < int64(len("container")) {
		t.Errorf("the container has %d bytes", size)
	}
	closeStore(t, s)

	s = open(t, root, name, o)
	report, err := s.Check(storage.CheckEverything())
	must(t, err)
	if len(report.Layers)+len(report.Containers)+len(report.Images) > 0 {
		t.Errorf("the store has found %+v", report)
	}
	dir, err = s.Mount("container", "")
	must(t, err)
	reads(t, dir, "container")
	if _, err := s.Unmount("container", false); err != nil {
		t.Fatal(err)
	}
	must(t, s.DeleteContainer(container.ID))
	_, err = s.DeleteImage(image.ID, true)
	must(t, err)
	driver, err := s.GraphDriver()
	must(t, err)
	left, err := driver.ListLayers()
	must(t, err)
	if len(left) > 0 {
		t.Errorf("layers %s are left", strings.Join(left, ", "))
	}
	closeStore(t, s)
}

func reads(t *testing.T, dir, want string) {
	t.Helper()
	have, err := os.ReadFile(filepath.Join(dir, "file"))
	must(t, err)
	if string(have) != want {
		t.Errorf("the file has %q, want %q", have, want)
	}
}
