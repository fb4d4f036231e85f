package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A family is the processes below a box, by number, with their times of birth.
type family map[string]string

// startFamily starts cmd and returns its family when the kernel has several.
func startFamily(t *testing.T, cmd *exec.Cmd) family {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if f := familyOf(strconv.Itoa(cmd.Process.Pid)); len(f) >= 4 {
			return f
		}
	}
	t.Fatal("the kernel has no processes")
	return nil
}

func familyOf(pid string) family {
	f := family{}
	children, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
	for _, file := range children {
		list, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(list)) {
			f[child] = birth(child)
			maps.Copy(f, familyOf(child))
		}
	}
	return f
}

// birth is what tells a process from a later one of the same number; the dead
// have none. It is the 22nd field of stat, the 20th after the name.
func birth(pid string) string {
	stat, _ := os.ReadFile("/proc/" + pid + "/stat")
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// checkGone gives the kernel of this machine a moment to bury them.
func (f family) checkGone(t *testing.T) {
	t.Helper()
	var left []string
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		left = nil
		for pid, born := range f {
			if born != "" && birth(pid) == born {
				left = append(left, pid)
			}
		}
		if left == nil {
			return
		}
	}
	t.Errorf("processes %v are left", left)
}
