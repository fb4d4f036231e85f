package deviceset_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

// The files that a journal is made of, on the machine that the test runs on.
func TestHostFiles(t *testing.T) {
	var host deviceset.Host
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := host.Lock(missing)
	refuses(t, err, fs.ErrNotExist)
	_, err = os.Stat(missing)
	refuses(t, err, fs.ErrNotExist)

	root := filepath.Join(t.TempDir(), "some", "where")
	for range 2 {
		must(t, host.MakeRoot(root, os.Getuid(), os.Getgid()))
	}
	info, err := os.Stat(root)
	must(t, err)
	equals(t, "mode", info.Mode().Perm(), fs.FileMode(0o700))
	lock, err := host.Lock(root)
	must(t, err)
	_, err = host.Lock(root)
	refuses(t, err, deviceset.ErrInUse)
	must(t, lock.Close())
	lock, err = host.Lock(root)
	must(t, err)
	must(t, lock.Close())

	_, err = host.OpenSlots(root)
	refuses(t, err, fs.ErrNotExist)
	for range 2 { // the second time in place of what is there
		must(t, host.MakeSlots(root, mib))
		slots, err := host.OpenSlots(root)
		must(t, err)
		for i, slot := range slots {
			b := make([]byte, mib)
			_, err := slot.ReadAt(b, 0)
			must(t, err)
			equals(t, "zeros", bytes.Equal(b, make([]byte, mib)), true)
			_, err = slot.WriteAt(bytes.Repeat([]byte{'x'}, 4096), 4096)
			must(t, err)
			must(t, slot.Sync())
			must(t, slot.Close())
			var st unix.Stat_t
			must(t, unix.Stat(fmt.Sprintf("%s/state.%d", root, i), &st))
			equals(t, "size, room, mode", []any{st.Size, st.Blocks*512 >= mib, st.Mode & 0o777}, []any{mib, true, uint32(0o600)})
		}
	}
	left, err := filepath.Glob(root + "/*.new")
	must(t, err)
	equals(t, "left behind", left, []string(nil))
}
