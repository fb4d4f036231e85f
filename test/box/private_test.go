package main

import (
	"os"
	"testing"
	"time"
)

// What a killed box leaves goes with the next one; what a running one has stays.
func TestSweep(t *testing.T) {
	var dirs [2]*privateDir
	for i := range dirs {
		dir, err := newPrivateDir()
		if err != nil {
			t.Fatal(err)
		}
		defer dir.close()
		hourAgo := time.Now().Add(-time.Hour)
		if err := os.Chtimes(dir.path, hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
		dirs[i] = dir
	}
	killed, running := dirs[0], dirs[1]
	killed.lock.Close()
	sweep()
	if _, err := os.Stat(killed.path); err == nil {
		t.Error("the folder of a killed box is still there")
	}
	if _, err := os.Stat(running.path); err != nil {
		t.Error(err)
	}
}
