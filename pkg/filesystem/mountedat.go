package filesystem

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// MountedAt returns what is mounted at path, if path is a mount point and not
// merely within one. Of several mounts upon each other it is the topmost. A
// symbolic link at the end of path is not followed, and a path that is not there
// is no mount point.
//
// The file system at path is not asked: one that has shut down, or whose device
// does not answer, is seen like any other.
func MountedAt(path string) (MountPoint, bool, error) {
	m, mounted, err := mountedAt(withoutSlash(path))
	if err != nil {
		return MountPoint{}, false, fmt.Errorf("look for a mount at %s: %w", path, err)
	}
	return m, mounted, nil
}

func mountedAt(path string) (MountPoint, bool, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return MountPoint{}, false, nil
	case err != nil:
		return MountPoint{}, false, err
	}
	defer unix.Close(fd)
	id, err := mountID(fd)
	if err != nil {
		return MountPoint{}, false, err
	}
	// The kernel's name of what is open has no links and no "..", and is spelled
	// as the mount's own name is.
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return MountPoint{}, false, err
	}
	real = strings.TrimSuffix(real, " (deleted)") // such as the node of a device that is gone
	found, err := mounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.ID != id || i.Mountpoint != real, i.ID == id
	})
	if err != nil || len(found) == 0 {
		return MountPoint{}, false, err
	}
	return found[0], true, nil
}

// mountID returns the id in mountinfo of the mount that an open file is in. The
// kernel tells it without a word to the file system (fs/proc/fd.c, seq_show),
// which statx(2) would have.
func mountID(fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var id int
		if _, err := fmt.Sscanf(line, "mnt_id: %d", &id); err == nil {
			return id, nil
		}
	}
	return 0, errors.New("no mnt_id in fdinfo")
}
