package postgres

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

	"github.com/csi-dmthin/csi-dmthin/test/postgres/daemon"
)

// programs is where Debian has PostgreSQL's.
const programs = "/usr/lib/postgresql/15/bin"

// client runs a client of the server.
func (s *Server) client(name string, args ...string) (string, error) {
	return run(name, s.clientArgs(args)...)
}

func (s *Server) clientArgs(args []string) []string {
	return append([]string{"--host=" + s.scratch, "--username=postgres"}, args...)
}

// run runs a program to its end, and returns what it says.
func run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), daemon.Patience)
	defer cancel()
	cmd, err := command(ctx, name, args...)
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

// command is one of the user that Debian's package makes: the server refuses to be
// root.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	who, err := owner()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name), args...)
	cmd.Dir = "/" // one that this user may enter
	cmd.Env = []string{"LC_ALL=C", "PGDATABASE=postgres", "PATH=" + programs + ":/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	return cmd, nil
}

func owner() (*syscall.Credential, error) {
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
	who, err := owner()
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chown(path, int(who.Uid), int(who.Gid))
}
