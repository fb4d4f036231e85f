package filesystem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UnmountOptions say how far an unmount may go.
type UnmountOptions struct {
	// Lazy lets a mount that stays busy be detached: it is gone for all who have no
	// file open there, and success does not mean that the device is unused.
	Lazy bool
}

// A mount is busy for an instant when somebody looks into it. This is how long
// that is waited for, in steps that double.
const (
	firstBusyWait = 10 * time.Millisecond
	lastBusyWait  = 640 * time.Millisecond // 1.27 s in all
)

// Unmount takes away what is mounted at target; of several mounts upon each
// other, the topmost. If nothing is mounted there, or nothing is there, that is
// no error. A mount that stays busy is unix.EBUSY. The directory stays.
//
// The context ends the waiting between attempts. An attempt itself writes what is
// dirty, and takes as long as the device does.
func Unmount(ctx context.Context, target string, o UnmountOptions) error {
	target = withoutSlash(target)
	err := umountPatiently(ctx, target)
	if o.Lazy && errors.Is(err, unix.EBUSY) && ctx.Err() == nil {
		err = umount(target, unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// umountPatiently tries again while the mount is busy.
func umountPatiently(ctx context.Context, target string) error {
	for wait := firstBusyWait; ; wait *= 2 {
		err := umount(target, 0)
		if !errors.Is(err, unix.EBUSY) || wait > lastBusyWait {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(wait):
		}
	}
}

// umount calls umount2(2), and makes nothing of there being no mount. That is
// EINVAL, which has other reasons too (fs/namespace.c, can_umount).
func umount(target string, flags int) error {
	err := unix.Unmount(target, flags|unix.UMOUNT_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EINVAL):
		if _, mounted, lookErr := MountedAt(target); lookErr != nil || !mounted {
			return lookErr
		}
	}
	return err
}

// withoutSlash returns path without what makes the kernel follow a link at its
// end.
func withoutSlash(path string) string {
	if short := strings.TrimRight(path, "/"); short != "" {
		return short
	}
	return path
}
