package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cacheFolder is where things stay that take long to make.
func cacheFolder() (string, error) {
	if dir := os.Getenv("CSI_DMTHIN_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "csi-dmthin"), err
}

// keyOf names what is made of the inputs.
func keyOf(inputs ...string) string {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%d:%s", len(in), in) // the length, lest "a","bc" be "ab","c"
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// keyOfFiles is keyOf for the contents of files.
func keyOfFiles(more string, files ...string) (string, error) {
	inputs := []string{more}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		inputs = append(inputs, string(data))
	}
	return keyOf(inputs...), nil
}

// cached returns the folder name/key of the cache, made by fill if there is none.
// The folder appears when it is complete: a fill that was killed is as if it had
// not been. Of a name only one key is kept, that which was made last.
func cached(name, key string, fill func(dir string) error) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	family := filepath.Join(cache, name)
	want := filepath.Join(family, key)
	if _, err := os.Stat(want); err == nil {
		return want, nil
	}
	if err := os.MkdirAll(family, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(family, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(want); err == nil { // another one made it while we waited
		return want, nil
	}
	return want, replace(family, want, fill)
}

const unfinished = "unfinished-"

// replace makes want, the only folder of its family, with the lock held.
func replace(family, want string, fill func(dir string) error) error {
	entries, err := os.ReadDir(family)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) {
			os.RemoveAll(filepath.Join(family, e.Name()))
		}
	}
	dir, err := os.MkdirTemp(family, unfinished)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	if err := os.Rename(dir, want); err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			os.RemoveAll(filepath.Join(family, e.Name()))
		}
	}
	return nil
}
