package filesystem

import "fmt"

// A Type is a kind of file system, by the name that mount(2) has for it.
type Type string

// Ext4 and XFS are the types that Make makes. Btrfs is recognised only.
const (
	Ext4  Type = "ext4"
	XFS   Type = "xfs"
	Btrfs Type = "btrfs"
)

// ParseType returns the type that is called s, if it is one that can be made.
func ParseType(s string) (Type, error) {
	t := Type(s)
	switch t {
	case Ext4, XFS:
		return t, nil
	case Btrfs:
		// fs/btrfs/volumes.c, device_list_add: a second device with the same fsid is
		// taken for the first one that has moved. temp_fsid came with Linux 6.7.
		return "", fmt.Errorf("file system %s: before Linux 6.7, two copies of one cannot be mounted on one host,"+
			" and snapshots are copies; use %s or %s", t, Ext4, XFS)
	}
	return "", fmt.Errorf("file system %q is unknown; use %s or %s", s, Ext4, XFS)
}

// MinSize returns the bytes that a device must have for Make; 0 if there is no
// rule but what the tool says.
func (t Type) MinSize() int64 {
	if t == XFS {
		return 300 << 20 // mkfs/xfs_mkfs.c, validate_supported, since xfsprogs 5.19
	}
	return 0
}
