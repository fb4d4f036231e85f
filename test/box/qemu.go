package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// smp is Debian's stock kernel on a machine with several CPUs, which QEMU
// emulates or, where that works, gives to KVM.
type smp struct{}

// smpModules are what it takes to reach this machine's files and the pipes.
var smpModules = []string{
	"virtio_pci", "virtio_console", "virtio_blk", "9p", "9pnet_virtio", "overlay",
}

func (smp) Run(ctx context.Context, c *Config, job *Job, disks Disks) (int, error) {
	q, err := findQEMU()
	if err != nil {
		return 0, err
	}
	g, err := newGuest(c)
	if err != nil {
		return 0, err
	}
	defer g.close()
	fitSMP(job, c, disks)
	devices, err := deviceArgs(g, c, disks)
	if err != nil {
		return 0, err
	}
	initramfs := filepath.Join(g.path, "initramfs")
	if err := q.writeInitramfs(initramfs, job); err != nil {
		return 0, err
	}
	args := slices.Concat(q.args(initramfs, g.console.path()), accelerator(ctx, q), devices)
	return g.run(ctx, exec.Command(q.qemu, append(args, "-m", c.Memory, "-smp", strconv.Itoa(c.CPUs))...))
}

// fitSMP tells the job the names that things have in QEMU.
func fitSMP(job *Job, c *Config, disks Disks) {
	// Nobody changes this machine's files in earnest while a test runs.
	job.Root = share("/", "root", "cache=loose")
	if c.Out != "" {
		job.Shares = []Mount{share(c.Out, "out", "cache=mmap")}
	}
	job.Modules, job.EarlyModules = stockModules, smpModules
	job.Stdout, job.Stderr, job.LastLine = "/dev/vport0p1", "/dev/vport0p2", "/dev/vport0p3"
	job.withDisks(disks.names("/dev/vd"))
}

// share shows a folder of this machine that shareArgs gave a tag.
func share(path, tag, cache string) Mount {
	return Mount{Path: path, Type: "9p", Source: tag, Data: "trans=virtio,version=9p2000.L,msize=512000," + cache}
}

// deviceArgs are the devices through which the guest sees this machine. The
// inlets come first: see there.
func deviceArgs(g *guest, c *Config, disks Disks) ([]string, error) {
	args := append(inletArgs(), shareArgs("root", "/", ",readonly=on")...)
	if c.Out != "" {
		out, err := g.link("out", c.Out)
		if err != nil {
			return nil, err
		}
		args = append(args, shareArgs("out", out, "")...)
	}
	links, err := g.linkDisks(disks)
	for _, link := range links {
		args = append(args, diskArgs(filepath.Base(link), link)...)
	}
	return args, err
}

// shareArgs show the guest a folder of this machine under a tag.
func shareArgs(tag, folder, more string) []string {
	return []string{"-virtfs", "local,path=" + folder + ",mount_tag=" + tag + ",security_model=none,multidevs=remap" + more}
}

// diskArgs add a disk. A flush in the guest is one of the file.
func diskArgs(name, file string) []string {
	return []string{
		"-drive", "if=none,id=" + name + ",format=raw,cache=writeback,discard=unmap,file=" + file,
		"-device", "virtio-blk-pci,drive=" + name,
	}
}

// inletArgs lead the guest's ports /dev/vport0p1 and up to the inlets. They must
// be the first virtio device: the 0 is its number among them.
func inletArgs() []string {
	args := []string{"-device", "virtio-serial-pci"}
	for i := range inlets {
		name := "inlet" + strconv.Itoa(i)
		args = append(args,
			"-chardev", fmt.Sprintf("file,id=%s,path=/proc/self/fd/%d", name, 3+i),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,nr=%d", name, 1+i),
		)
	}
	return args
}

// A qemuMachine is what every boot of a stock kernel needs.
type qemuMachine struct {
	qemu    string // the program
	kernel  string // the kernel's image
	modules *moduleTree
}

func findQEMU() (*qemuMachine, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fmt.Errorf(missing, "qemu-system-x86")
	}
	release, modules := newestThinKernel()
	if modules == nil {
		return nil, fmt.Errorf(missing, "linux-image-amd64")
	}
	return &qemuMachine{qemu: qemu, kernel: unpacked("/boot/vmlinuz-" + release), modules: modules}, nil
}

// args are those of a bare machine that leaves as soon as its kernel does.
func (q *qemuMachine) args(initramfs, console string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", q.kernel, "-initrd", initramfs, "-serial", "file:" + console,
		"-append", "console=ttyS0 quiet panic=-1 " + jobVariable + "=/job.json",
	}
}

// writeInitramfs writes a root file system that has this program as /init, the
// job, and the modules that lead to the real root.
func (q *qemuMachine) writeInitramfs(file string, job *Job) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	data, err := job.marshal()
	if err != nil {
		return err
	}
	files, err := q.modules.resolve(job.EarlyModules...)
	if err != nil {
		return err
	}
	var a archive
	a.add("init", self)
	a.add("job.json", data)
	a.addFolder("mnt")
	a.addFolder("proc")
	for _, name := range append(files, "modules.dep", "modules.builtin") {
		if err := a.addCopies(filepath.Join(q.modules.dir, name)); err != nil {
			return err
		}
	}
	return a.write(file)
}
