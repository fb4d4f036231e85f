package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLostPools(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lost")
	l := &lostPools{dir: dir}
	want := func(lost bool) {
		t.Helper()
		l.read = time.Time{} // a second later
		if l.has("key") != lost || l.has("other") {
			t.Errorf("lost: %v, other: %v", l.has("key"), l.has("other"))
		}
	}
	want(false) // there is no ConfigMap
	must0(t, os.Mkdir(dir, 0o700))
	want(false)
	must0(t, os.WriteFile(filepath.Join(dir, "key"), nil, 0o600))
	if l.has("key") {
		t.Error("it was read again at once")
	}
	want(true)
	must0(t, os.Remove(filepath.Join(dir, "key")))
	want(false)
	if (&lostPools{}).has("key") {
		t.Error("something is lost without a directory")
	}
}
