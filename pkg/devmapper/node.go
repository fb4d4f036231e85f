package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenNode opens the block device of i with flags as for os.OpenFile, and makes
// sure that it is the one: the kernel gives a minor number to the next device as
// soon as it is free, so a path alone proves nothing. A node of another device
// is ErrWrongNode. What OpenNode returned stays the right one, whatever
// happens to the name.
func OpenNode(i Info, flags int) (*os.File, error) {
	path, err := i.NodePath()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if err := i.check(f); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: path, Err: err}, f.Close())
	}
	return f, nil
}

// check compares an open node with i by device number and by UUID. The device
// number cannot pass to another device while the node is open.
func (i Info) check(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || DevNo(st.Rdev) != i.Dev {
		return fmt.Errorf("%w: want block device %s, is %s with mode %o", ErrWrongNode, i.Dev, DevNo(st.Rdev), st.Mode)
	}
	uuid, err := sysfsUUID(i.Dev)
	if err == nil && uuid != i.UUID {
		err = fmt.Errorf("%w: want uuid %q, is %q", ErrWrongNode, i.UUID, uuid)
	}
	return err
}

// sysfsUUID asks sysfs for a device's UUID, which, unlike the ioctl, takes a
// device number (drivers/md/dm-sysfs.c: dm_attr_uuid_show).
func sysfsUUID(dev DevNo) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/dm/uuid", dev))
	return strings.TrimSuffix(string(b), "\n"), err
}
