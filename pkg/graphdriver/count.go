package graphdriver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// How often a layer was got stands in a file beside its mount point. It counts as long
// as the layer is mounted, so it need not outlive the machine, and is not synced. It is
// written before the mount that begins it and removed after the unmount that ends it: a
// Get or a Put that a kill cuts short leaves it too high by one, and never too low.
func (d *Driver) countPath(id string) string { return filepath.Join(d.mounts(), "."+id+".count") }

// count returns how often a layer that is mounted was got: once at least.
func (d *Driver) count(id string) (int, error) {
	text, err := os.ReadFile(d.countPath(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return max(n, 1), nil
}

// setCount writes in place, and always as many bytes: a kill leaves the old number or
// the new one, and a Put needs no space.
func (d *Driver) setCount(id string, n int) error {
	f, err := os.OpenFile(d.countPath(id), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%010d\n", n), 0)
	return errors.Join(err, f.Close())
}

// isCounted reports whether it was Get that mounted a layer.
func (d *Driver) isCounted(id string) bool {
	_, err := os.Lstat(d.countPath(id))
	return err == nil
}

func (d *Driver) forgetCount(id string) error {
	if err := os.Remove(d.countPath(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
