package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// networkFile is where the cluster's network namespace is mounted. It is no name of
// `ip netns`, which leaves a mount behind for ever.
func networkFile() string { return filepath.Join(home, "network") }

// makeNetwork makes the namespace with a bridge, and with a tap device for each node.
func makeNetwork(ctx context.Context, p *Plan) error {
	if err := os.WriteFile(networkFile(), nil, 0o600); err != nil {
		return err
	}
	if err := mountNewNamespace(networkFile()); err != nil {
		return fmt.Errorf("make a network namespace, which only root may: %w", err)
	}
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(networkBatch(p))
	return inNetwork(func() error { return runQuietly(cmd) })
}

// networkBatch is what `ip` is told. Nodes and the API server reach pods directly:
// nobody hides behind another's address.
func networkBatch(p *Plan) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("link set lo up")
	line("link add br0 type bridge")
	line("addr add %s/24 dev br0", gateway)
	line("link set br0 up")
	for _, n := range p.nodes() {
		line("tuntap add dev %s mode tap", n.tap())
		line("link set %s master br0 up", n.tap())
		line("route add %s via %s", n.pods(), n.address())
	}
	return b.String()
}

// mountNewNamespace makes a network namespace that lasts as long as its mount.
func mountNewNamespace(file string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, "")
	}()
	return <-done
}

// inNetwork does something in the cluster's network: what it starts stays there, as
// does a socket that it opens.
func inNetwork(do func() error) (err error) {
	there, err := os.Open(networkFile())
	if err != nil {
		return err
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the cluster's network: %w", err)
	}
	defer func() {
		back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread() // else the thread is lost, and ends with its goroutine
		}
		err = errors.Join(err, back)
	}()
	return do()
}

// inhabitants returns the processes in the cluster's network, but not this one.
func inhabitants() (pids []int) {
	var network unix.Stat_t
	if unix.Stat(networkFile(), &network) != nil {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		var of unix.Stat_t
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if unix.Stat(link, &of) == nil && of.Ino == network.Ino && of.Dev == network.Dev && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeNetwork unmounts the namespace, which ends it with all its devices.
func removeNetwork() error {
	for {
		switch err := unix.Unmount(networkFile(), unix.MNT_DETACH); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // not mounted (any more)
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", networkFile(), err)
		}
	}
}
