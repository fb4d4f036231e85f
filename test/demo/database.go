package main

import (
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/test/postgres"
)

// A database is PostgreSQL on a volume.
type database struct {
	*volume
	*postgres.Server
	name string
}

func (d *database) data() string { return filepath.Join(d.target, "data") }

// create makes a volume for a database.
func (s *story) create(name string, size int64, source *csi.VolumeContentSource) (*database, error) {
	v, err := s.createVolume(name, size, source)
	if err != nil {
		return nil, err
	}
	s.later(func() error { return s.deleteVolume(v) })
	return &database{volume: v, name: name}, nil
}

// mount stages and publishes the volume.
func (s *story) mount(d *database) error {
	if err := s.publish(d.volume); err != nil {
		return err
	}
	s.later(func() error { return s.unpublish(d.volume) })
	return nil
}

// run starts PostgreSQL and waits until it answers.
func (s *story) run(d *database) (err error) {
	if d.Server, err = postgres.Start(d.data(), s.path("postgres-"+d.name)); err != nil {
		return err
	}
	s.runs(d.Process)
	return d.Ready()
}

// room is how large the file system is, and how much of it is free, to its users.
func (v *volume) room() (size, free int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(v.target, &fs); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", v.target, err)
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize, nil
}
