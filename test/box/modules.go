package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A moduleTree is the modules of one kernel, as depmod describes them.
type moduleTree struct {
	dir   string
	files map[string]string   // module name → file, relative to dir; "" if built in
	needs map[string][]string // module name → names of modules
}

func readModuleTree(dir string) (*moduleTree, error) {
	t := &moduleTree{dir: dir, files: map[string]string{}, needs: map[string][]string{}}
	err := errors.Join(
		eachLine(filepath.Join(dir, "modules.builtin"), t.addBuiltin),
		eachLine(filepath.Join(dir, "modules.dep"), t.addModule),
	)
	return t, err
}

// addBuiltin takes a line of modules.builtin: FILE.
func (t *moduleTree) addBuiltin(line string) { t.files[moduleName(line)] = "" }

// addModule takes a line of modules.dep: FILE: FILE FILE...
func (t *moduleTree) addModule(line string) {
	file, needs, _ := strings.Cut(line, ":")
	name := moduleName(file)
	t.files[name] = file
	for _, need := range strings.Fields(needs) {
		t.needs[name] = append(t.needs[name], moduleName(need))
	}
}

// moduleName turns kernel/drivers/md/dm-mod.ko.xz into dm_mod. The kernel
// takes - and _ for the same.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// resolve returns the files that make the named modules work, in an order in
// which they load: what a module needs stands before it.
func (t *moduleTree) resolve(names ...string) (files []string, err error) {
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		file, ok := t.files[name]
		if !ok {
			return fmt.Errorf("no module %s in %s", name, t.dir)
		}
		for _, need := range t.needs[name] {
			if err := visit(need); err != nil {
				return err
			}
		}
		if file != "" {
			files = append(files, file)
		}
		return nil
	}
	for _, name := range names {
		if err := visit(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// load gives the running kernel the named modules.
func (t *moduleTree) load(names ...string) error {
	files, err := t.resolve(names...)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadModule(filepath.Join(t.dir, file)); err != nil {
			return fmt.Errorf("load module %s: %w", file, err)
		}
	}
	return nil
}

// loadModule is insmod, which is content with a module that is there.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func eachLine(path string, do func(line string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		do(lines.Text())
	}
	return lines.Err()
}
