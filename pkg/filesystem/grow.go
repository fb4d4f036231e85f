package filesystem

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/mount-utils"
)

// Grow grows a file system that is mounted at mountPoint to the size of its
// device. If it has that size already, nothing is done, without asking a tool.
//
// It is ResizeFs of k8s.io/mount-utils that grows. That one takes the device at
// its caller's word, and the file system at blkid's, and where blkid sees nothing
// it answers that nothing was to be done. So we look before, and we look after.
func Grow(ctx context.Context, device, mountPoint string, t Type) error {
	if err := grow(ctx, device, mountPoint, t); err != nil {
		return fmt.Errorf("grow %s on %s at %s: %w", t, device, mountPoint, err)
	}
	return nil
}

func grow(ctx context.Context, device, mountPoint string, t Type) error {
	if err := mustBeMounted(device, mountPoint); err != nil {
		return err
	}
	if missing, _, err := missingOf(device, mountPoint, t); err == nil && missing < 4096 {
		return nil // not worth a tool
	}
	// A superblock that we cannot read the tool may.
	if _, err := mount.NewResizeFs(tools{ctx: ctx}).Resize(device, mountPoint); err != nil {
		return withCause(ctx, err)
	}
	missing, least, err := missingOf(device, mountPoint, t)
	if err == nil && missing >= least {
		err = fmt.Errorf("after it was grown, %d bytes of the device are still not in it", missing)
	}
	return err
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

// missingOf returns how many bytes of a device are not in the file system that is
// mounted from it, and how many of them may be too few to grow by.
func missingOf(device, mountPoint string, t Type) (missing, least int64, err error) {
	size, err := deviceSize(device)
	if err != nil {
		return 0, 0, err
	}
	var has int64
	switch t {
	case Ext4:
		has, least, err = extAt(device)
	case XFS:
		has, least, err = xfsAt(mountPoint)
	default:
		err = errors.New("no tool is known for that")
	}
	return size - has, least, err
}
