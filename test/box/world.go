package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratch is a folder that every root file system has, and that pid 1 covers
// with a tmpfs to build the world in.
const scratch = "/mnt"

// enterWorld makes this machine's files, under an overlay that takes what the
// command writes, the root of everything, and brings up what a running system has.
func (j *Job) enterWorld() error {
	modules, err := j.moduleTree()
	if err != nil {
		return err
	}
	if err := modules.load(j.EarlyModules...); err != nil {
		return err
	}
	if err := j.mountRoot(); err != nil {
		return err
	}
	if err := j.linkModules(); err != nil {
		return err
	}
	return errors.Join(
		modules.load(thinModules...),
		linkStandardFiles(),
		bringUpLoopback(),
		unix.Sethostname([]byte("box")),
		// From here on the console may have more than warnings.
		os.WriteFile("/proc/sys/kernel/printk", []byte("7"), 0),
	)
}

// mountRoot builds the new root and moves it over the old one, as an initramfs
// does: pivot_root cannot leave one. A mere chroot would not do, because who
// enters the mount namespace later (runc exec, nsenter) would find the old root.
func (j *Job) mountRoot() error {
	root := filepath.Join(scratch, "root")
	if err := mount("tmpfs", "tmpfs", scratch, 0, "size=90%"); err != nil {
		return err
	}
	for _, dir := range []string{"lower", "upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(scratch, dir), 0o755); err != nil {
			return err
		}
	}
	if err := mount(j.Root.Type, j.Root.Source, scratch+"/lower", unix.MS_RDONLY, j.Root.Data); err != nil {
		return err
	}
	if err := mount("overlay", "overlay", root, 0,
		"lowerdir="+scratch+"/lower,upperdir="+scratch+"/upper,workdir="+scratch+"/work"); err != nil {
		return err
	}
	if err := j.mountInside(root); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root over the old: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	// Shared, as systemd has it: kubelet and its kin count on it.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// mountInside mounts what lies on top of the root.
func (j *Job) mountInside(root string) error {
	for _, m := range []struct{ fstype, path, data string }{
		{"proc", "proc", ""},
		{"sysfs", "sys", ""},
		{"cgroup2", "sys/fs/cgroup", ""},
		{"devtmpfs", "dev", ""},
		{"devpts", "dev/pts", "ptmxmode=0666"},
		{"tmpfs", "dev/shm", ""},
		{"tmpfs", "run", "mode=0755"},
	} {
		if err := mount(m.fstype, m.fstype, filepath.Join(root, m.path), 0, m.data); err != nil {
			return err
		}
	}
	for _, share := range j.Shares {
		if err := mount(share.Type, share.Source, filepath.Join(root, share.Path), 0, share.Data); err != nil {
			return err
		}
	}
	return nil
}

// mount mounts a file system and makes the mount point if there is none.
func mount(fstype, source, path string, flags uintptr, data string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, path, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, path, err)
	}
	return nil
}

// moduleTree reads the tree of the running kernel.
func (j *Job) moduleTree() (*moduleTree, error) {
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	return readModuleTree(filepath.Join(j.Modules, release))
}

// linkModules shows the modules where modprobe looks for them, be it started by
// the command or by the kernel.
func (j *Job) linkModules() error {
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	link := filepath.Join("/lib/modules", release)
	if _, err := os.Stat(link); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(j.Modules, release), link)
}

func kernelRelease() (string, error) {
	var name unix.Utsname
	err := unix.Uname(&name)
	return unix.ByteSliceToString(name.Release[:]), err
}

// linkStandardFiles does what udev would, were it here.
func linkStandardFiles() error {
	var errs []error
	for link, target := range map[string]string{
		"/dev/fd":     "/proc/self/fd",
		"/dev/stdin":  "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1",
		"/dev/stderr": "/proc/self/fd/2",
	} {
		errs = append(errs, os.Symlink(target, link))
	}
	return errors.Join(errs...)
}

func bringUpLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo)
}
