package csi

import (
	"fmt"

	csi "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/filesystem"
)

// access is how a volume is given to its users.
type access struct {
	block    bool
	fs       string // asked for; "" is any, and ext4 for a new volume
	flags    []string
	readOnly bool
	shared   bool // several targets on the node may have it
}

// parseCapability reads one capability.
func parseCapability(c *csi.VolumeCapability) (a access, err error) {
	switch t := c.GetAccessType().(type) {
	case *csi.VolumeCapability_Block:
		a.block = true
	case *csi.VolumeCapability_Mount:
		a.fs, a.flags = t.Mount.GetFsType(), t.Mount.GetMountFlags()
		if t.Mount.GetVolumeMountGroup() != "" {
			return a, fmt.Errorf("%w: volume_mount_group", errUnsupported)
		}
	default:
		return a, fmt.Errorf("%w: a volume capability without access type", errInvalid)
	}
	if a.fs != "" {
		if _, err := filesystem.ParseType(a.fs); err != nil {
			return a, fmt.Errorf("%w: fs_type: %w", errInvalid, err)
		}
	}
	switch mode := c.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER:
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		a.shared = true
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
		a.shared, a.readOnly = true, true
	case csi.VolumeCapability_AccessMode_UNKNOWN:
		return a, fmt.Errorf("%w: a volume capability without access mode", errInvalid)
	default:
		return a, fmt.Errorf("%w: access mode %s: a volume is on one node", errUnsupported, mode)
	}
	return a, nil
}

// parseCapabilities reads those of a volume: it is either a block device or has a file
// system, of one type.
func parseCapabilities(all []*csi.VolumeCapability) (want access, err error) {
	if len(all) == 0 {
		return want, fmt.Errorf("%w: no volume capabilities", errInvalid)
	}
	for i, c := range all {
		a, err := parseCapability(c)
		switch {
		case err != nil:
			return want, err
		case i > 0 && a.block != want.block:
			return want, fmt.Errorf("%w: a volume is a block device or has a file system, not both", errUnsupported)
		case want.fs != "" && a.fs != "" && a.fs != want.fs:
			return want, fmt.Errorf("%w: file systems %s and %s at once", errUnsupported, want.fs, a.fs)
		case i == 0 || want.fs == "":
			want = a
		}
	}
	return want, nil
}
