package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// settings are small, for small volumes, and safe: what is acknowledged is synced.
// Nobody vacuums, and no replica is prepared for, so that a full disk meets a
// query first, which fails, and not a part of the server that must not.
var settings = []string{
	"listen_addresses=", "shared_buffers=32MB", "min_wal_size=32MB", "max_wal_size=64MB",
	"wal_level=minimal", "max_wal_senders=0", "max_replication_slots=0", "autovacuum=off",
}

// A postgres is a PostgreSQL server whose data is on a volume.
type postgres struct {
	*daemon
	socket string // the folder that its socket is in
}

// initDB makes the data of a server. The root of a volume is root's, so the data
// is in a folder that is not. Pages have checksums, and whoever reads one checks it.
func initDB(data string) error {
	if err := makeFolder(data); err != nil {
		return err
	}
	_, err := postgresTool("initdb", "--pgdata", data, "--username=postgres", "--auth=trust",
		"--data-checksums", "--encoding=UTF8", "--no-locale")
	return err
}

// startPostgres starts a server. What it says, and its socket, go into the folder
// scratch, which is made.
func startPostgres(data, scratch string) (*postgres, error) {
	if err := makeFolder(scratch); err != nil {
		return nil, err
	}
	args := []string{"-D", data, "-c", "unix_socket_directories=" + scratch}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	cmd, err := asPostgres(context.Background(), "postgres", args...)
	if err != nil {
		return nil, err
	}
	// SIGINT has it cancel queries and leave its data clean.
	d, err := startDaemon(cmd, filepath.Join(scratch, "log"), syscall.SIGINT)
	if err != nil {
		return nil, err
	}
	return &postgres{daemon: d, socket: scratch}, nil
}

// isReady waits until the server takes queries.
func (p *postgres) isReady() error {
	return p.until("answered", func() (bool, error) { return p.said("ready to accept connections"), nil })
}

// forgetOwner removes the mark of the server that had this data. In a pod of its
// own nobody would have the number in it; here its owner is alive, and a server
// that finds it would not start.
func forgetOwner(data string) error { return os.Remove(filepath.Join(data, "postmaster.pid")) }

// recovered tells whether the server found data that nobody had closed, and made
// it whole from its log.
func (p *postgres) recovered() bool {
	return p.said("automatic recovery in progress") && p.said("redo done")
}

// errDiskFull is what PostgreSQL calls ENOSPC.
var errDiskFull = errors.New("error 53100, disk_full")

// query returns what SQL answers, columns with | in between.
func (p *postgres) query(statements ...string) (string, error) {
	args := []string{"--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--variable=VERBOSITY=verbose",
		"--variable=ON_ERROR_STOP=1"}
	for _, statement := range statements {
		args = append(args, "--command="+statement)
	}
	out, err := p.tool("psql", args...)
	if err != nil && strings.Contains(err.Error(), "53100:") {
		err = errDiskFull
	}
	return out, err
}
