package filesystem

import (
	"context"
	"fmt"
)

// Grow grows a file system that is mounted at mountPoint to the size of its
// device. If it has that size already, nothing is done, without asking a tool.
//
// ResizeFs of k8s.io/mount-utils does the same by the same tools. It is not used
// because it takes what is on the device from blkid, and calls it a success, with
// nothing grown, where blkid sees nothing; because it believes the caller that
// the device is what is mounted; and because its tools run for ever.
func Grow(ctx context.Context, device, mountPoint string, t Type) error {
	err := mustBeMounted(device, mountPoint)
	if err == nil && !fills(device, t) {
		err = growTool(ctx, device, mountPoint, t)
	}
	if err != nil {
		return fmt.Errorf("grow %s on %s at %s: %w", t, device, mountPoint, err)
	}
	return nil
}

func growTool(ctx context.Context, device, mountPoint string, t Type) error {
	switch t {
	case Ext4:
		return run(ctx, "resize2fs", device)
	case XFS:
		return run(ctx, "xfs_growfs", "-d", mountPoint)
	}
	return fmt.Errorf("no tool is known for that")
}

// mustBeMounted checks that it is device that is mounted at mountPoint: xfs_growfs
// grows whatever it finds there.
func mustBeMounted(device, mountPoint string) error {
	want, err := numberOf(device)
	if err != nil {
		return err
	}
	m, mounted, err := MountedAt(mountPoint)
	switch is := (deviceNumber{m.Major, m.Minor}); {
	case err != nil:
		return err
	case !mounted:
		return fmt.Errorf("%w there", ErrNotMounted)
	case is != want:
		return fmt.Errorf("%w there: want device %s, is %s", ErrNotMounted, want, is)
	}
	return nil
}

// fills reports that no block of 4 KiB more would fit on the device. While mounted, the
// superblock on the device may be an older one. That has the smaller size, so the
// tool is run in vain and nothing else is wrong; of one that cannot be read, the
// tool may judge.
func fills(device string, t Type) bool {
	info, err := ProbeDevice(device)
	if err != nil || info.Type != t {
		return false
	}
	size, err := deviceSize(device)
	return err == nil && size-info.Size < 4096
}
