package main

import (
	"bytes"
	"os"
	"regexp"
)

// A console is a file with all that a kernel says.
type console struct {
	file *os.File
	kept bool
}

// newConsole makes the file in folder, or among the temporary files. Several
// boxes may share a folder.
func newConsole(folder string) (*console, error) {
	f, err := os.CreateTemp(folder, "box-console-*.log")
	return &console{file: f}, err
}

func (c *console) path() string { return c.file.Name() }

// keep makes the file stay, and returns its name.
func (c *console) keep() string {
	c.kept = true
	return c.path()
}

// close removes the file unless it is to be kept.
func (c *console) close() {
	c.file.Close()
	if !c.kept {
		os.Remove(c.path())
	}
}

var (
	// initLine is how our own pid 1 says why it gave up.
	initLine = regexp.MustCompile(`(?m)^box: (.*?)\r?$`)

	// troubleLine is a kernel that found a fault in itself.
	troubleLine = regexp.MustCompile(`(?m)^.*(Kernel panic|BUG:|kernel BUG|Oops|WARNING:|INFO: task .* blocked|INFO: rcu).*?$`)

	timestamp = regexp.MustCompile(`^\[ *[0-9.]+\] `)
)

// trouble returns the first line in which the kernel accuses itself, or "".
func (c *console) trouble() string {
	return clean(troubleLine.Find(c.read()))
}

// lastWords says why a kernel ended before its command did.
func (c *console) lastWords() string {
	said := c.read()
	if m := initLine.FindSubmatch(said); m != nil {
		return string(m[1])
	}
	if line := troubleLine.Find(said); line != nil {
		return "the kernel died: " + clean(line)
	}
	said = bytes.TrimSpace(said)
	return "the kernel ended early: " + clean(said[bytes.LastIndexByte(said, '\n')+1:])
}

func (c *console) read() []byte {
	said, _ := os.ReadFile(c.path()) // an unreadable console has nothing to say
	return said
}

func clean(line []byte) string {
	return string(timestamp.ReplaceAll(bytes.TrimSpace(line), nil))
}
