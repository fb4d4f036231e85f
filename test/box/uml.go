package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"

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
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	g, err := newGuest(c)
	if err != nil {
		return 0, err
	}
	defer g.close()

	job.Root = Mount{Type: "hostfs", Source: "none", Data: "/"}
	if c.Out != "" {
		job.Shares = []Mount{{Path: c.Out, Type: "hostfs", Source: "none", Data: c.Out}}
	}
	job.Modules, job.EarlyModules = umlModules, []string{"overlay"}
	job.Stdout, job.Stderr, job.LastLine = "/dev/tty1", "/dev/tty2", "/dev/tty3"
	job.withDisks(disks.names("/dev/ubd"))
	jobFile, err := g.writeJob(job)
	if err != nil {
		return 0, err
	}

	cmd := exec.Command(linux, umlArgs...)
	cmd.Args = append(cmd.Args, "mem="+c.Memory, "uml_dir="+g.dir, "init="+self, jobVariable+"="+jobFile)
	for i, disk := range disks {
		link, err := g.link("disk"+strconv.Itoa(i), disk.Name())
		if err != nil {
			return 0, err
		}
		cmd.Args = append(cmd.Args, fmt.Sprintf("ubd%dd=%s", i, link))
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + memoryFolder(c, g)}
	return g.run(ctx, cmd)
}

// memoryFolder returns where the guest's memory, which is a file, is to live:
// in real memory if that has room for it and lets it be executed.
func memoryFolder(c *Config, g *guest) string {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return g.dir
	}
	if fs.Flags&unix.ST_NOEXEC != 0 || int64(fs.Bavail)*fs.Bsize < c.memoryBytes() {
		return g.dir
	}
	return shm
}
