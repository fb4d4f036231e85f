package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	utilexec "k8s.io/utils/exec"
)

// tools start programs for k8s.io/mount-utils, which knows no context and lets
// them run for ever. Here they run as all others that we start: see command.
type tools struct {
	utilexec.Interface // nil: nothing but Command is called
	ctx                context.Context
}

func (t tools) Command(name string, args ...string) utilexec.Cmd {
	plain := utilexec.New().CommandContext(t.ctx, name, args...)
	return utilCmd{plain, t.ctx, name, args}
}

type utilCmd struct {
	utilexec.Cmd
	ctx  context.Context
	name string
	args []string
}

// CombinedOutput runs the tool. If it fails, what it wrote is cut to its last
// words: mount-utils makes them part of its error.
func (t utilCmd) CombinedOutput() ([]byte, error) {
	runtime.LockOSThread() // see command
	defer runtime.UnlockOSThread()
	output, err := command(t.ctx, t.name, t.args...).CombinedOutput()
	if err == nil {
		return output, nil
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = &utilexec.ExitErrorWrapper{ExitError: exit} // blkid's 2 is an answer
	}
	var last tail
	_, _ = last.Write(output)
	return []byte(last.String()), err
}

// withCause adds why the context ended, which mount-utils makes a text without
// cause.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
