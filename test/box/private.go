package main

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A privateDir is a folder of one boot, which its lock tells from one that a
// killed box left behind.
type privateDir struct {
	path string
	lock *os.File
}

// The folders are not below $TMPDIR, which may be a place that the guest hides,
// as /dev/shm is.
const (
	privateParent  = "/var/tmp"
	privatePattern = "box-boot-*"
)

func newPrivateDir() (*privateDir, error) {
	sweep()
	path, err := os.MkdirTemp(privateParent, privatePattern)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		os.RemoveAll(path)
		return nil, err
	}
	return &privateDir{path, lock}, nil
}

func (d *privateDir) close() {
	os.RemoveAll(d.path)
	d.lock.Close()
}

// lockDir locks a folder until the file is closed or this process dies.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// sweep removes what killed boxes left. A folder that is only just made may not
// be locked yet.
func sweep() {
	folders, _ := filepath.Glob(filepath.Join(privateParent, privatePattern))
	for _, folder := range folders {
		info, err := os.Stat(folder)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if lock, err := lockDir(folder); err == nil {
			os.RemoveAll(folder)
			lock.Close()
		}
	}
}
