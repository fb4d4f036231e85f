package filesystem

import (
	"errors"
	"slices"

	"github.com/moby/sys/mountinfo"
)

// ErrNotMounted: something else is at a mount point than what is looked for.
var ErrNotMounted = errors.New("not mounted")

// A MountPoint is one mount in our mount namespace.
type MountPoint struct {
	Path         string // of the mount point
	Root         string // what is mounted there, as a path within the file system; not "/" for most bind mounts
	FSType       string
	Source       string // what mount(2) was told, for people
	Major, Minor uint32 // of the device
	Options      []string
	SuperOptions []string // of the file system, for all its mounts
}

// ReadOnly reports whether it was mounted so that nothing can be written here. An
// ext4 that takes no more writes after an error is "rw" all the same (seen on
// Linux 6.1.176).
func (m MountPoint) ReadOnly() bool {
	return slices.Contains(m.Options, "ro") || slices.Contains(m.SuperOptions, "ro")
}

// Mounts returns all mounts, also those which others hide.
//
// They are read by the library that k8s.io/mount-utils stands on, and not by its
// own ParseMountInfo: that one fails altogether once somebody on the machine has
// mounted something with an empty source, and leaves escapes in the paths.
func Mounts() ([]MountPoint, error) { return mounts(nil) }

// MountsOf returns the mounts of a device, also bind mounts of parts of it.
func MountsOf(major, minor uint32) ([]MountPoint, error) {
	return mounts(func(i *mountinfo.Info) (skip, stop bool) {
		return uint32(i.Major) != major || uint32(i.Minor) != minor, false
	})
}

func mounts(filter mountinfo.FilterFunc) ([]MountPoint, error) {
	infos, err := mountinfo.GetMounts(filter)
	if err != nil {
		return nil, err
	}
	points := make([]MountPoint, 0, len(infos))
	for _, i := range infos {
		points = append(points, present(i))
	}
	return points, nil
}

func present(i *mountinfo.Info) MountPoint {
	return MountPoint{
		Path:         i.Mountpoint,
		Root:         i.Root,
		FSType:       i.FSType,
		Source:       i.Source,
		Major:        uint32(i.Major),
		Minor:        uint32(i.Minor),
		Options:      splitOptions(i.Options),
		SuperOptions: splitOptions(i.VFSOptions),
	}
}
