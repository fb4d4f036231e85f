// Package postgres has PostgreSQL testify that storage keeps what was synced: it runs
// servers whose data are on volumes, and on each a bank whose books must agree, and must
// have every payment that a client was told of.
//
// It needs root, PostgreSQL 15 of Debian 12, and the user that comes with it, to whom
// each folder on the way to the data must be open. It knows nothing of what the data
// are on.
package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/csi-dmthin/csi-dmthin/test/postgres/daemon"
)

// settings are small, for small volumes, and safe: what is acknowledged is synced.
// Nobody vacuums, and no replica is prepared for, so that a full disk meets a
// query first, which fails, and not a part of the server that must not. A query has
// one process: they begin slowly on some kernels.
var settings = []string{
	"listen_addresses=", "shared_buffers=32MB", "min_wal_size=32MB", "max_wal_size=64MB",
	"wal_level=minimal", "max_wal_senders=0", "max_replication_slots=0", "autovacuum=off", "max_worker_processes=0", "max_logical_replication_workers=0",
}

// A Server is one that was started.
type Server struct {
	*daemon.Process
	scratch string // the folder that its socket is in
}

// Init makes the data of a server. The root of a volume is root's, so the data
// is in a folder that is not. Pages have checksums, and whoever reads one checks it.
func Init(data string) error {
	if err := makeFolder(data); err != nil {
		return err
	}
	_, err := run("initdb", "--pgdata", data, "--username=postgres", "--auth=trust",
		"--data-checksums", "--encoding=UTF8", "--no-locale")
	return err
}

// Start starts a server. What it says, and its socket, go into the folder
// scratch, which is made.
func Start(data, scratch string) (*Server, error) {
	if err := makeFolder(scratch); err != nil {
		return nil, err
	}
	args := []string{"-D", data, "-c", "unix_socket_directories=" + scratch}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	cmd, err := command(context.Background(), "postgres", args...)
	if err != nil {
		return nil, err
	}
	// SIGINT has it cancel queries and leave its data clean.
	p, err := daemon.Start(cmd, filepath.Join(scratch, "log"), syscall.SIGINT)
	if err != nil {
		return nil, err
	}
	return &Server{Process: p, scratch: scratch}, nil
}

// Ready waits until the server takes queries.
func (s *Server) Ready() error {
	return s.Until("answered", func() (bool, error) { return s.Said("ready to accept connections"), nil })
}

// Crash ends the server and those that it has started as they are, with nothing written
// that is not yet, or finds that it has ended.
func (s *Server) Crash() error { return s.End(syscall.SIGQUIT) }

// ForgetOwner removes the mark of the server that had this data, if there is one. In a
// pod of its own nobody would have the number in it; here its owner may be alive, and a
// server that finds it would not start.
func ForgetOwner(data string) error {
	err := os.Remove(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return err
}

// Recovered tells whether the server found data that nobody had closed, and made
// it whole from its log.
func (s *Server) Recovered() bool {
	return s.Said("automatic recovery in progress") && s.Said("redo done")
}

// ErrDiskFull is what PostgreSQL calls ENOSPC.
var ErrDiskFull = errors.New("error 53100, disk_full")

// Query returns what SQL answers, columns with | in between.
func (s *Server) Query(statements ...string) (string, error) {
	args := []string{"--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--variable=VERBOSITY=verbose",
		"--variable=ON_ERROR_STOP=1"}
	for _, statement := range statements {
		args = append(args, "--command="+statement)
	}
	out, err := s.client("psql", args...)
	if err != nil && strings.Contains(err.Error(), "53100:") {
		err = ErrDiskFull
	}
	return out, err
}

// Check reads all pages, and holds tables and indexes against each other.
func (s *Server) Check() error {
	_, err := s.client("pg_amcheck", "--install-missing", "--heapallindexed")
	return err
}
