package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestArchiveIsWhatDockerSaves(t *testing.T) {
	dir := t.TempDir()
	program, layer, archive := filepath.Join(dir, "program"), filepath.Join(dir, "layer"), filepath.Join(dir, "archive")
	if err := os.WriteFile(program, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeProgramLayer(layer, program); err != nil {
		t.Fatal(err)
	}
	image := containerImage{Names: []string{"localhost/program:1"}, Entrypoint: []string{"/program"}}
	if err := image.writeArchive(archive, layer); err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	unmarshal(t, files["manifest.json"].data, &manifest)
	if len(manifest) != 1 || !reflect.DeepEqual(manifest[0].RepoTags, image.Names) || len(manifest[0].Layers) != 1 {
		t.Fatalf("manifest %+v", manifest)
	}
	var config struct {
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	unmarshal(t, files[manifest[0].Config].data, &config)
	if !reflect.DeepEqual(config.Config.Entrypoint, image.Entrypoint) {
		t.Errorf("entrypoint %q", config.Config.Entrypoint)
	}
	inside := filepath.Join(dir, "inside")
	if err := os.WriteFile(inside, files[manifest[0].Layers[0]].data, 0o600); err != nil {
		t.Fatal(err)
	}
	digest, err := sha256Of(inside)
	if err != nil || !reflect.DeepEqual(config.RootFS.DiffIDs, []string{"sha256:" + digest}) {
		t.Errorf("layer %s, %v; the configuration has %q", digest, err, config.RootFS.DiffIDs)
	}
	if file := untar(t, inside)["program"]; string(file.data) != "binary" || file.header.Mode != 0o755 {
		t.Errorf("program %q of mode %o", file.data, file.header.Mode)
	}
}

func TestArchiveOfTheSameIsTheSame(t *testing.T) {
	dir := t.TempDir()
	layer := filepath.Join(dir, "layer")
	if err := os.WriteFile(layer, []byte("layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	var archives [2][]byte
	for i := range archives {
		file := filepath.Join(dir, "archive")
		if err := (containerImage{Names: []string{"a:1"}}).writeArchive(file, layer); err != nil {
			t.Fatal(err)
		}
		archives[i], _ = os.ReadFile(file)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of one image differ")
	}
}

type tarFile struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, file string) map[string]tarFile {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]tarFile{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(header.Name, "/")] = tarFile{header, content}
	}
}

func unmarshal(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
}
