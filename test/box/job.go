package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// jobVariable names the file with the job. Set on the kernel's command line,
// it reaches pid 1 as an environment variable.
const jobVariable = "BOX_JOB"

// A Job is what pid 1 of a guest kernel is told.
type Job struct {
	Args []string
	Env  []string
	Dir  string

	Root   Mount   // this machine's files, which the guest only reads
	Shares []Mount // folders that the guest may write, mounted at their own path

	Modules      string   // folder of module folders, one for each kernel release
	EarlyModules []string // needed to mount Root

	Stdout, Stderr, LastLine string // devices that lead outside

	// ShowBlocked is when the kernel is asked what it waits for. It is late, but
	// some time before all is killed.
	ShowBlocked time.Time
}

// A Mount says how the guest reaches a folder of this machine.
type Mount struct {
	Path   string // there and here
	Type   string
	Source string
	Data   string
}

// newJob returns what every kernel's job has in common.
func newJob(c *Config) (*Job, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if c.Out != "" {
		if err := os.MkdirAll(c.Out, 0o755); err != nil {
			return nil, err
		}
	}
	return &Job{
		Args:        c.Command,
		Env:         environment(os.Environ(), c),
		Dir:         dir,
		ShowBlocked: time.Now().Add(c.Timeout * 3 / 4),
	}, nil
}

// environment is what the command finds set: all that is set here, but a path
// that has the tools of an administrator, and no word to udev, which is not
// there to answer.
func environment(outer []string, c *Config) []string {
	ours := []string{"PATH", "HOME", "BOX_KERNEL", "BOX_OUT", "BOX_DISKS", jobVariable}
	env := slices.DeleteFunc(slices.Clone(outer), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(ours, name)
	})
	env = append(env,
		"PATH="+withAdminDirs(os.Getenv("PATH")),
		"HOME=/root",
		"DM_DISABLE_UDEV=1",
		"BOX_KERNEL="+c.Kernel,
	)
	if c.Out != "" {
		env = append(env, "BOX_OUT="+c.Out)
	}
	return env
}

func withAdminDirs(path string) string {
	dirs := filepath.SplitList(path)
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// withDisks tells the command the names of its block devices.
func (j *Job) withDisks(devices []string) {
	j.Env = append(j.Env, "BOX_DISKS="+strings.Join(devices, " "))
}

func (j *Job) marshal() ([]byte, error) { return json.Marshal(j) }

func readJob(file string) (*Job, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var job Job
	if err := json.Unmarshal(data, &job); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &job, nil
}
