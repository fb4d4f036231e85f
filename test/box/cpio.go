package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"
)

// An archive is an initramfs in the making: files in cpio's "newc" format, with
// the folders that they need.
type archive struct {
	buf     bytes.Buffer
	inode   int
	folders map[string]bool
}

const (
	modeFolder = 0o040755
	modeFile   = 0o100755
)

// addFolder adds a folder and those above it, each once.
func (a *archive) addFolder(name string) {
	if name == "." || a.folders[name] {
		return
	}
	a.addFolder(path.Dir(name))
	if a.folders == nil {
		a.folders = map[string]bool{}
	}
	a.folders[name] = true
	a.entry(name, modeFolder, nil)
}

// add adds a file, executable as all are here. Its name has no leading slash.
func (a *archive) add(name string, data []byte) {
	a.addFolder(path.Dir(name))
	a.entry(name, modeFile, data)
}

// addCopies adds files of this machine under the names that they have here.
func (a *archive) addCopies(files ...string) error {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		a.add(strings.TrimPrefix(file, "/"), data)
	}
	return nil
}

// write writes the archive, with its end mark.
func (a *archive) write(file string) error {
	a.entry("TRAILER!!!", 0, nil)
	return os.WriteFile(file, a.buf.Bytes(), 0o600)
}

// entry appends a header, a name and data, the latter two padded to 4 bytes.
// The header is "070701" and 13 numbers: inode, mode, uid, gid, links, time,
// size, device (4), length of the name with its final zero, checksum (unused).
func (a *archive) entry(name string, mode int, data []byte) {
	a.inode++
	a.buf.WriteString("070701")
	for _, n := range []int{a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&a.buf, "%08x", n)
	}
	a.buf.WriteString(name + "\x00")
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}
