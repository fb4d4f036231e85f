package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A containerImage is an image with one layer.
type containerImage struct {
	Names      []string // repository:tag
	Entrypoint []string
	Cmd        []string
}

// writeArchive writes the image with that layer, a tar file, as `docker save` would:
// what containerd and buildah both read, and what it takes no container engine to write.
func (i containerImage) writeArchive(file, layer string) error {
	digest, err := sha256Of(layer)
	if err != nil {
		return err
	}
	config, err := json.Marshal(i.config(digest))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(config)
	configName, layerName := hex.EncodeToString(sum[:])+".json", digest+"/layer.tar"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": i.Names, "Layers": []string{layerName},
	}})
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	if err := addBytes(w, configName, config); err != nil {
		return err
	}
	if err := addFile(w, layerName, layer, 0o644); err != nil {
		return err
	}
	if err := addBytes(w, "manifest.json", manifest); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}

// config is the image's configuration. It tells no time of the build, so the same
// contents are the same image.
func (i containerImage) config(layer string) map[string]any {
	return map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"created":      epoch.Format(time.RFC3339),
		"config": map[string]any{
			"Env":        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			"Entrypoint": i.Entrypoint,
			"Cmd":        i.Cmd,
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + layer}},
		"history": []map[string]any{{"created": epoch.Format(time.RFC3339)}},
	}
}

var epoch = time.Unix(0, 0).UTC()

// writeProgramLayer writes a layer that has nothing but a program in its root, and
// a place for temporary files.
func writeProgramLayer(file, program string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	tmp := &tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: epoch}
	if err := w.WriteHeader(tmp); err != nil {
		return err
	}
	if err := addFile(w, filepath.Base(program), program, 0o755); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}

func addBytes(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func addFile(w *tar.Writer, name, file string, mode int64) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: info.Size(), ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}

func sha256Of(file string) (string, error) {
	in, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer in.Close()
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
