package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
)

// memoryFile, under a pool's root, has the options that the pool was last opened with:
// they open it when it is not in the configuration any more.
const memoryFile = "options.json"

// A memory is what that file holds.
type memory struct {
	Options map[string]string `json:"options"` // as in the configuration
}

// remember writes down a pool's options. Killed in between, it leaves those of before.
func remember(root string, options map[string]string) error {
	if have, ok := recall(root); ok && maps.Equal(have, options) {
		return nil
	}
	text, err := json.MarshalIndent(memory{options}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(root, memoryFile)
	if err := writeDurably(path+".new", append(text, '\n')); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(root)
}

// recall returns the options that a pool was last opened with, if they are known.
func recall(root string) (map[string]string, bool) {
	text, err := os.ReadFile(filepath.Join(root, memoryFile))
	if err != nil {
		return nil, false
	}
	var m memory
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, false
	}
	_, err = parsePool(m.Options) // they may be those of a newer version
	return m.Options, err == nil
}

func writeDurably(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
