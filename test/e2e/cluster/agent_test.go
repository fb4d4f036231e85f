package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

func TestAgentRunsCommands(t *testing.T) {
	for _, c := range []struct {
		command        []string
		stdout, stderr string
		status         int
		err            string
	}{
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 3"}, "out\n", "err\n", 3, ""},
		{[]string{"true"}, "", "", 0, ""},
		{[]string{"sh", "-c", "kill -9 $$"}, "", "", 137, ""},
		{[]string{"no-such-program"}, "", "", 0, "executable file not found"},
	} {
		here, there := net.Pipe()
		go answer(there)
		var stdout, stderr bytes.Buffer
		status, err := converse(here, &stdout, &stderr, c.command)
		here.Close()
		if status != c.status || stdout.String() != c.stdout || stderr.String() != c.stderr {
			t.Errorf("%q: status %d, %q, %q", c.command, status, &stdout, &stderr)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v", c.command, err)
		}
	}
}

func TestAgentThatDiesIsAnError(t *testing.T) {
	here, there := net.Pipe()
	go func() {
		buffer := make([]byte, 1<<10)
		_, _ = there.Read(buffer)
		there.Close()
	}()
	if _, err := converse(here, nil, nil, []string{"true"}); err == nil {
		t.Error("a command that never ended has a status")
	}
}
