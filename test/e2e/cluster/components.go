package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A component is programs that are built from one Go module, which pins them.
type component struct {
	name   string            // of the module's folder in tools/e2e, and in the cache
	module string            // whose version the programs are to tell
	linker string            // flags that make them tell %s
	rename map[string]string // programs that Go calls otherwise than their users do
	copies []string          // files of modules, as module:path, that belong to them
}

var components = []component{
	{name: "etcd", rename: map[string]string{"server": "etcd"}},
	{name: "containerd"},
	// Without a version, charts that ask for one refuse the cluster.
	{name: "kubernetes", module: "k8s.io/kubernetes", linker: "-X k8s.io/component-base/version.gitVersion=%s"},
	{name: "coredns"},
	{name: "sidecars", copies: []string{
		"github.com/kubernetes-csi/external-snapshotter/client/v8:config/crd/*.storage.k8s.io_*.yaml",
		"github.com/kubernetes-csi/external-snapshotter/v8:deploy/kubernetes/snapshot-controller/rbac-*.yaml",
	}},
}

// programs are the folders of the built components, by their names.
type programs map[string]string

// buildAll builds the components that the cache lacks.
func buildAll(ctx context.Context, tree string) (programs, error) {
	built := programs{}
	for _, c := range components {
		dir, err := c.build(ctx, filepath.Join(tree, "tools/e2e", c.name))
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", c.name, err)
		}
		built[c.name] = dir
	}
	return built, nil
}

func (p programs) folders() (list []string) {
	for _, c := range components {
		list = append(list, p[c.name])
	}
	return list
}

// key names the build of a component.
func (p programs) key(component string) string { return filepath.Base(p[component]) }

// build builds the component of a module's folder.
func (c component) build(ctx context.Context, module string) (string, error) {
	mod := filepath.Join(module, "go.mod")
	compiler, err := output(ctx, module, "go", "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	key, err := keyOfFiles(compiler+c.linker+strings.Join(c.copies, " "), mod, filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	return cached(filepath.Join("bin", c.name), key, func(dir string) error {
		s := newSteps()
		flags, err := c.linkerFlags(mod)
		if err != nil {
			return err
		}
		s.done("building %s, which takes minutes, once", c.name)
		if err := goBuild(ctx, module, flags, dir+"/", "tool"); err != nil {
			return err
		}
		for from, to := range c.rename {
			if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
				return err
			}
		}
		if err := c.copyFiles(ctx, module, dir); err != nil {
			return err
		}
		s.done("built %s", c.name)
		return nil
	})
}

// linkerFlags makes the programs tell the version that go.mod requires.
func (c component) linkerFlags(mod string) (string, error) {
	const small = "-s -w"
	if c.linker == "" {
		return small, nil
	}
	data, err := os.ReadFile(mod)
	if err != nil {
		return "", err
	}
	version := requiredVersion(string(data), c.module)
	if version == "" {
		return "", fmt.Errorf("%s requires no %s", mod, c.module)
	}
	return small + " " + fmt.Sprintf(c.linker, version), nil
}

// requiredVersion returns the version of a module that the text of a go.mod
// requires, or "".
func requiredVersion(mod, module string) string {
	m := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(module) + ` (v\S+)`).FindStringSubmatch(mod)
	if m == nil {
		return ""
	}
	return m[1]
}

func (c component) copyFiles(ctx context.Context, module, dir string) error {
	for _, from := range c.copies {
		name, pattern, _ := strings.Cut(from, ":")
		folder, err := output(ctx, module, "go", "list", "-m", "-f", "{{.Dir}}", name)
		if err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("module %s has no %s", name, pattern)
		}
		for _, file := range files {
			if err := copyFile(filepath.Join(dir, filepath.Base(file)), file, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// goBuild builds packages into out, as programs that run without a libc, which a
// FROM scratch image has none of.
func goBuild(ctx context.Context, folder, linker, out string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", linker, "-o", out}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return runQuietly(cmd)
}

// runQuietly runs cmd, whose output is of interest only if it fails.
func runQuietly(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, lastLines(string(out), 20))
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// output returns what a command prints.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", cmd, err, lastLines(string(exit.Stderr), 20))
	}
	return strings.TrimSpace(string(out)), err
}

func copyFile(to, from string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}

// sourceTree returns the folder of this project's sources, above this program or
// above the current folder.
func sourceTree() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{filepath.Dir(self), here} {
		for ; dir != "/"; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "tools/e2e/kubernetes/go.mod")); err == nil {
				return dir, nil
			}
		}
	}
	return "", errors.New("no tools/e2e above this program or the current folder: run it in the project's tree")
}
