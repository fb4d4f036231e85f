package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Disk is a file that the command sees as a block device.
type Disk struct {
	File string
	Size int64 // to make it with; 0 if it must be there
}

// parseDisk reads FILE or FILE:SIZE.
func parseDisk(s string) (Disk, error) {
	file, size, sized := strings.Cut(s, ":")
	disk := Disk{File: file}
	if sized {
		n, err := parseSize(size)
		if err != nil {
			return Disk{}, fmt.Errorf("disk %s: %w", s, err)
		}
		disk.Size = n
	}
	return disk, nil
}

// parseSize reads a number of bytes such as 4096, 512M or 2G.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGT")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no size like 512M or 2G", s)
	}
	switch s[len(digits):] {
	case "":
		return n, nil
	case "K":
		return n << 10, nil
	case "M":
		return n << 20, nil
	case "G":
		return n << 30, nil
	case "T":
		return n << 40, nil
	}
	return 0, fmt.Errorf("%q is no size like 512M or 2G", s)
}

// Disks are the open disk files of one box, each locked against other boxes.
type Disks []*os.File

func openDisks(list []Disk) (disks Disks, err error) {
	defer func() {
		if err != nil {
			disks.close()
		}
	}()
	for _, d := range list {
		f, err := d.open()
		if err != nil {
			return disks, fmt.Errorf("disk %s: %w", d.File, err)
		}
		disks = append(disks, f)
	}
	return disks, nil
}

// open makes the file if there is none, sparse and of the wished size. A file
// that is there keeps its size: its contents are why it is kept.
func (d Disk) open() (*os.File, error) {
	path, err := filepath.Abs(d.File)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = d.create(path)
	}
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return nil, errors.New("in use by another box")
	}
	return f, nil
}

func (d Disk) create(path string) (*os.File, error) {
	if d.Size == 0 {
		return nil, fmt.Errorf("no such file, and no size to make it with, as in %s:1G", d.File)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(d.Size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d Disks) close() {
	for _, f := range d {
		f.Close()
	}
}

// names returns a device name per disk: prefix a, prefix b and so on.
func (d Disks) names(prefix string) []string {
	names := make([]string, len(d))
	for i := range d {
		names[i] = prefix + string(rune('a'+i))
	}
	return names
}
