package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"
)

// uml is Debian's user mode Linux: a kernel that is an ordinary process. It has
// one CPU, and boots in less than a second.
type uml struct{}

const umlModules = "/usr/lib/uml/modules"

// umlArgs are the same for every boot.
var umlArgs = []string{
	"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
	"con=null", "ssl=null", "con0=null,fd:1", "con1=null,fd:3", "con2=null,fd:4", "con3=null,fd:5",
	"quiet",
	// Choosing the fastest RAID 6 algorithm takes 0.9 s and setting up old-style
	// terminals 0.1 to 1 s, two thirds of a boot, and nobody here has use for either.
	"initcall_blacklist=raid6_select_algo", "pty.legacy_count=0",
}

func (uml) Run(ctx context.Context, c *Config, job *Job, disks Disks) (int, error) {
	linux, err := exec.LookPath("linux.uml")
	if err != nil {
		return 0, fmt.Errorf(missing, "user-mode-linux")
	}
	g, err := newGuest(c)
	if err != nil {
		return 0, err
	}
	defer g.close()
	fitUML(job, c, disks)
	args, err := bootArgs(g, job)
	if err != nil {
		return 0, err
	}
	links, err := g.linkDisks(disks)
	if err != nil {
		return 0, err
	}
	for i, link := range links {
		args = append(args, fmt.Sprintf("ubd%dd=%s", i, link)) // d: its first bytes mean nothing
	}
	if c.Tap != "" {
		args = append(args, "vec0:transport=tap,depth=64,gro=1,ifname="+c.Tap)
	}
	cmd := exec.Command(linux, append(slices.Concat(umlArgs, args), "mem="+c.Memory)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + memoryFolder(c, g)}
	return g.run(ctx, cmd)
}

// fitUML tells the job the names that things have in user mode Linux.
func fitUML(job *Job, c *Config, disks Disks) {
	job.Root = hostfs("/")
	if c.Out != "" {
		job.Shares = []Mount{hostfs(c.Out)}
	}
	job.Modules, job.EarlyModules = umlModules, []string{"overlay"}
	job.Stdout, job.Stderr, job.LastLine = "/dev/tty1", "/dev/tty2", "/dev/tty3"
	job.withDisks(disks.names("/dev/ubd"))
}

// hostfs shows a folder of this machine.
func hostfs(path string) Mount {
	return Mount{Path: path, Type: "hostfs", Source: "none", Data: path}
}

// bootArgs lead the kernel to pid 1, and pid 1 to its job.
func bootArgs(g *guest, job *Job) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	jobFile, err := g.writeJob(job)
	return []string{"uml_dir=" + g.path, "init=" + self, jobVariable + "=" + jobFile}, err
}

// memoryFolder returns where the guest's memory, which is a file, is to live:
// in real memory if that has room for it and lets it be executed.
func memoryFolder(c *Config, g *guest) string {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return g.path
	}
	if fs.Flags&unix.ST_NOEXEC != 0 || int64(fs.Bavail)*fs.Bsize < c.memoryBytes() {
		return g.path
	}
	return shm
}
