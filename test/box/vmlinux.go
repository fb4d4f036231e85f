package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// unpacked returns the file of a kernel image without its compression, made
// once and kept in the user's cache. A kernel that is emulated takes 5 s to
// unpack itself; so one that we cannot unpack is only slow, and returned as it is.
func unpacked(image string) string {
	info, err := os.Stat(image)
	if err != nil {
		return image
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return image
	}
	// Debian's updates may change an image and keep its name.
	name := fmt.Sprintf("%s-%d", filepath.Base(image), info.ModTime().Unix())
	file := filepath.Join(cache, "box", name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	if err := unpack(image, file); err != nil {
		return image
	}
	return file
}

// unpack writes image's kernel to file, which appears when it is whole.
func unpack(image, file string) error {
	packed, err := payload(image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(file), "part-")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	xz := exec.Command("xz", "--decompress", "--stdout")
	xz.Stdin, xz.Stdout = bytes.NewReader(packed), part
	if err := xz.Run(); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}

// payload cuts the compressed kernel out of a bzImage. The setup header has the
// number of 512-byte sectors before the protected-mode code at 0x1f1, less one,
// and the payload's offset in that code, and length, at 0x248.
func payload(image string) ([]byte, error) {
	data, err := os.ReadFile(image)
	if err != nil {
		return nil, err
	}
	if len(data) < 0x250 || string(data[0x202:0x206]) != "HdrS" {
		return nil, errors.New("no bzImage")
	}
	start := (int(data[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(data[0x248:]))
	end := start + int(binary.LittleEndian.Uint32(data[0x24c:]))
	if end > len(data) || end-start < 4 || !bytes.HasPrefix(data[start:], []byte("\xfd7zXZ")) {
		return nil, errors.New("not packed by xz")
	}
	return data[start : end-4], nil // the last 4 bytes are its length unpacked
}
