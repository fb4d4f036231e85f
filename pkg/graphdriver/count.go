package graphdriver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// How often a layer was got stands in a file beside its mount point. It matters as
// long as the layer is mounted, so it need not outlive the machine, and is not synced.
// It is written before a mount and after an unmount: a call that a kill cuts short
// leaves it too high by one, and never too low.
func (d *Driver) countPath(id string) string { return filepath.Join(d.mounts(), "."+id+".count") }

// count returns how often a layer was got. One that is mounted was got once at least.
func (d *Driver) count(id string, mounted bool) int {
	if !mounted {
		return 0
	}
	text, _ := os.ReadFile(d.countPath(id)) // none is once
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return max(n, 1)
}

// setCount writes in place, and always as many bytes: a kill leaves the old number or
// the new one.
func (d *Driver) setCount(id string, n int) error {
	f, err := os.OpenFile(d.countPath(id), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%010d\n", n), 0)
	return errors.Join(err, f.Close())
}

func (d *Driver) forgetCount(id string) error {
	err := os.Remove(d.countPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// isName reports whether id can be a layer's name, and so part of a path.
func isName(id string) bool { return deviceset.CheckName(id) == nil }
