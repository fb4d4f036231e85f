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
// and the targets that break them for tests. The rest comes on demand.
var thinModules = []string{
	"dm-thin-pool", "dm-flakey", "dm-delay", "dm-dust", "dm-log-writes", "loop",
}

const missing = "package %s is missing: run `make setup`, or `apt-get install %[1]s`"
