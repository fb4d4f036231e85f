package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// programs is where Debian has PostgreSQL's.
const programs = "/usr/lib/postgresql/15/bin"

// tool runs a client of the server.
func (p *postgres) tool(name string, args ...string) (string, error) {
	return postgresTool(name, p.clientArgs(args)...)
}

func (p *postgres) clientArgs(args []string) []string {
	return append([]string{"--host=" + p.socket, "--username=postgres"}, args...)
}

// postgresTool runs a program to its end, and returns what it says.
func postgresTool(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd, err := asPostgres(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// asPostgres is a command of the user that Debian's package makes: the server
// refuses to be root.
func asPostgres(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	who, err := postgresUser()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name), args...)
	cmd.Dir = "/" // one that this user may enter
	cmd.Env = []string{"LC_ALL=C", "PGDATABASE=postgres", "PATH=" + programs + ":/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	return cmd, nil
}

func postgresUser() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL is not installed (make setup): %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// makeFolder makes a folder that is the database's alone.
func makeFolder(path string) error {
	who, err := postgresUser()
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chown(path, int(who.Uid), int(who.Gid))
}
