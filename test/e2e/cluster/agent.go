package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// In each node an agent runs commands for those in the cluster's network, as root and
// outside of all pods, so that it can tell what pods leave behind.
const agentPort = "7000"

func (n Node) agentAddress() string { return net.JoinHostPort(n.address(), agentPort) }

// A chunk is what a command said, or that it has ended.
type chunk struct {
	Stderr bool
	Data   []byte
	Ended  bool
	Status int    // as a shell tells it
	Error  string // why it could not be run
}

// serveAgent answers for ever.
func serveAgent(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go answer(conn)
	}
}

// answer runs the command that comes in by conn. It is killed when nobody listens
// any more.
func answer(conn net.Conn) {
	defer conn.Close()
	var args []string
	requests := gob.NewDecoder(conn)
	if err := requests.Decode(&args); err != nil || len(args) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_ = requests.Decode(&args) // there is no second request, only the end
		cancel()
	}()
	replies := &replies{encoder: gob.NewEncoder(conn)}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = replies.writer(false), replies.writer(true)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	end := chunk{Ended: true}
	end.Status, end.Error = outcome(cmd.Run())
	_ = replies.send(end)
}

// outcome tells how a command ended as a shell would.
func outcome(err error) (status int, why string) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, ""
	case !errors.As(err, &exit):
		return failed, err.Error()
	}
	if end := exit.Sys().(syscall.WaitStatus); end.Signaled() {
		return 128 + int(end.Signal()), ""
	}
	return exit.ExitCode(), ""
}

// replies are chunks on their way to one listener.
type replies struct {
	sync.Mutex
	encoder *gob.Encoder
}

func (r *replies) send(c chunk) error {
	r.Lock()
	defer r.Unlock()
	return r.encoder.Encode(c)
}

func (r *replies) writer(stderr bool) io.Writer {
	return writerFunc(func(data []byte) (int, error) {
		return len(data), r.send(chunk{Stderr: stderr, Data: data})
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(data []byte) (int, error) { return f(data) }

// run runs a command in the node's kernel and returns its status.
func (n Node) run(ctx context.Context, stdout, stderr io.Writer, command ...string) (int, error) {
	if !n.running() {
		return 0, fmt.Errorf("%s has no power: `cluster boot %s`", n.name(), n.name())
	}
	conn, err := dialInNetwork(ctx, "tcp", n.agentAddress())
	if err != nil {
		return 0, fmt.Errorf("%s does not answer: %w (see %s)", n.name(), err, n.log())
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	status, err := converse(conn, stdout, stderr, command)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %s: %w", n.name(), strings.Join(command, " "), err)
	}
	return status, nil
}

// converse asks the agent at the other end of conn to run the command.
func converse(conn io.ReadWriter, stdout, stderr io.Writer, command []string) (int, error) {
	if err := gob.NewEncoder(conn).Encode(command); err != nil {
		return 0, err
	}
	for replies := gob.NewDecoder(conn); ; {
		var c chunk
		if err := replies.Decode(&c); err != nil {
			return 0, fmt.Errorf("it ended without a word: %w", err)
		}
		to := stdout
		if c.Stderr {
			to = stderr
		}
		if _, err := to.Write(c.Data); err != nil {
			return 0, err
		}
		switch {
		case c.Ended && c.Error != "":
			return 0, errors.New(c.Error)
		case c.Ended:
			return c.Status, nil
		}
	}
}

// ask returns what a command in the node prints.
func (n Node) ask(ctx context.Context, command ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	status, err := n.run(ctx, &stdout, &stderr, command...)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: %s: status %d: %s", n.name(), strings.Join(command, " "), status, lastLines(stderr.String(), 5))
	}
	return strings.TrimSpace(stdout.String()), err
}

// execInNode is the command that does so. It exits as the node's command does.
func execInNode(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	_, n, err := nodeArgument(args[:1])
	if err != nil {
		return err
	}
	status, err := n.run(ctx, os.Stdout, os.Stderr, args[1:]...)
	if err == nil && status != 0 {
		err = exitStatus(status)
	}
	return err
}

// exitStatus is the status of somebody else's command, which ours is to have, too.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }
