package filesystem

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// toolGrace is how long a tool has to end by itself when its context is done.
const toolGrace = 5 * time.Second

// run runs a tool to its end. The error has its last words and keeps the
// *exec.ExitError.
func run(ctx context.Context, tool string, args ...string) error {
	var output tail
	cmd := command(ctx, tool, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %w", tool, context.Cause(ctx), err)
	case len(output) == 0:
		return fmt.Errorf("%s: %w", tool, err)
	}
	return fmt.Errorf("%s: %w: %s", tool, err, output)
}

// command returns a tool that ends with its context. One that waits for a device
// which never answers cannot be killed, and is waited for.
//
// A tool that outlives us would write to a device that our successor takes for
// unused, so it ends with us too. The kernel sends that signal when the thread
// ends that started the tool: the caller keeps its thread until then.
func command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // e2fsck ends in order
	cmd.WaitDelay = toolGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// A tail keeps the end of what is written to it.
type tail []byte

const maxTail = 512

func (t *tail) Write(b []byte) (int, error) {
	*t = append(*t, b...)
	*t = (*t)[max(0, len(*t)-maxTail):]
	return len(b), nil
}

// String returns what was written in one line.
func (t tail) String() string {
	words := strings.FieldsFunc(string(bytes.ToValidUTF8(t, nil)), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	})
	return strings.Join(words, " ")
}
