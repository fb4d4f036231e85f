package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

// errNoAgent says that nobody listens at a socket.
var errNoAgent = errors.New("no agent listens there")

// A client asks a running agent.
type client struct {
	socket string
	http   *http.Client
}

func newClient(socket string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &client{socket, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// socketFlag lets a command be told where the agent listens.
func socketFlag(command *cobra.Command, socket *string) {
	command.Flags().StringVar(socket, "admin-socket", defaultAdminSocket, "`socket` at which the agent listens")
}

// get asks a question.
func (c *client) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil, into)
}

// ofPool is the query for one pool, or for all if it is empty.
func ofPool(name string) url.Values {
	if name == "" {
		return nil
	}
	return url.Values{"pool": {name}}
}

func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.explain(err)
	}
	defer response.Body.Close()
	return read(response, into)
}

func read(response *http.Response, into any) error {
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return json.Unmarshal(text, into)
	}
	var f failure
	if err := json.Unmarshal(text, &f); err != nil || f.Error == "" {
		return fmt.Errorf("the agent answers %s: is it of another version?", response.Status)
	}
	return errors.New(f.Error)
}

// explain says what an operator can do about an agent that cannot be asked.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w: start one with `csi-dmthin serve`, or name its socket with --admin-socket", c.socket, errNoAgent)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: only root may ask the agent: %w", c.socket, syscall.EACCES)
	}
	var cause *url.Error
	if errors.As(err, &cause) {
		err = cause.Err // the rest is about HTTP
	}
	return fmt.Errorf("%s: %w", c.socket, err)
}
