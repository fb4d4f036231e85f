package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// ErrNeedsRepair: the file system has damage of which the repair may lose data,
// and so is for a person to decide.
var ErrNeedsRepair = errors.New("file system needs repair by hand")

// The exit status of e2fsck is a sum of these (e2fsck(8)).
const (
	e2fsckCorrected   = 1
	e2fsckUncorrected = 4
)

// Check makes an unmounted file system fit for mounting, as far as that is
// possible without decisions. With Ext4 it replays the journal and mends what is
// safe to mend; the rest is ErrNeedsRepair. With XFS it does nothing: the log is
// replayed by the mount, and there is no mending without decisions.
func Check(ctx context.Context, device string, t Type) error {
	if t != Ext4 {
		return nil
	}
	err := run(ctx, "e2fsck", "-p", device)
	switch status := exitStatus(err); {
	case err == nil, status == e2fsckCorrected:
		return nil
	case status > 0 && status&e2fsckUncorrected != 0:
		err = fmt.Errorf("%w: keep it unmounted, take a snapshot or a copy, then run e2fsck -f %s: %w",
			ErrNeedsRepair, device, err)
	}
	return fmt.Errorf("check %s on %s: %w", t, device, err)
}

// exitStatus returns that of a tool, or -1 if it has none: it did not start, or
// a signal ended it.
func exitStatus(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
