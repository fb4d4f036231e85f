package main

import "context"

// A Kernel runs a job's command and returns its exit status. An error means
// that there is none.
type Kernel interface {
	Run(ctx context.Context, config *Config, job *Job, disks Disks) (int, error)
}

// kernels are the kernels we know, by the name that -kernel and $BOX give.
var kernels = map[string]Kernel{
	"uml":  uml{},
	"smp":  smp{},
	"host": host{},
}

// thinModules is what a kernel is given before the command starts: thin pools,
// and targets that break them for tests. More comes when a table names it, such
// as dm-dust, which Debian's stock kernel lacks. The first is here because the
// kernel would start modprobe for it, which takes an emulated one 2 s.
var thinModules = []string{
	"crc32c-generic", "dm-thin-pool", "dm-flakey", "dm-delay", "dm-log-writes", "loop",
}

const missing = "package %s is missing: run `make setup`, or `apt-get install %[1]s`"
