// Cluster brings up a real Kubernetes cluster whose nodes have device-mapper thin
// pools, on one machine whose own kernel may have none, and takes it down again.
//
//	cluster up [-nodes 2] [-mem 4G] [-image ARCHIVE]... [-feature-gates A=true]
//	cluster down
//	cluster run [flags of up] [-timeout 1h] [-collect DIR] -- COMMAND [ARG...]
//
//	cluster power-cut NODE        end the node's kernel as a power failure would
//	cluster boot NODE             start it again, with the same disks
//	cluster exec NODE COMMAND...  run a command as root in the node's kernel
//	cluster kubectl ARG...        ask the API server
//	cluster shell COMMAND...      run a command in the cluster's network
//	cluster collect DIR           gather all logs, and what there is
//
//	cluster build                 build what a cluster is made of, once
//	cluster driver-image FILE     build the driver's image, for -image
//
// The control plane runs on this machine, in a network namespace of its own. Each
// node is a user mode Linux over this machine's files, with containerd, kubelet and
// kube-proxy, and with disks that last from one boot to the next: one for what a
// node keeps in /var/lib, and two for a pool, /dev/disk/by-id/e2e-data (8 GiB) and
// /dev/disk/by-id/e2e-metadata (128 MiB). CoreDNS and the snapshot controller run
// in the cluster.
//
// COMMAND of run, and of shell, finds KUBECONFIG set, kubectl and helm in its PATH, and in
// E2E_POWER_CUT, E2E_BOOT, E2E_EXEC and E2E_COLLECT the commands that do so, to
// which the node's name, or the folder, is to be added. It has the cluster's network and
// no other, so what it must download it must have before.
//
// All is built from Go modules and Debian packages, some ten minutes for the first
// time, into ${CSI_DMTHIN_CACHE:-~/.cache/csi-dmthin}.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
)

// commands are what this program can be told to do. Those without usage are for
// itself, inside a node.
var commands = map[string]struct {
	usage string
	run   func(ctx context.Context, args []string) error
}{
	"up":           {"[-nodes N] [-mem SIZE] [-image ARCHIVE]... [-feature-gates GATES]", up},
	"down":         {"", down},
	"run":          {"[flags of up] [-timeout TIME] [-collect DIR] -- COMMAND [ARG...]", run},
	"power-cut":    {"NODE", powerCut},
	"boot":         {"NODE", boot},
	"exec":         {"NODE COMMAND [ARG...]", execInNode},
	"kubectl":      {"ARG...", kubectlHere},
	"shell":        {"COMMAND [ARG...]", shell},
	"collect":      {"DIR", collect},
	"build":        {"", build},
	"driver-image": {"FILE", driverImage},
	"node":         {"", beNode},
	"preload":      {"", bePreloader},
}

// failed is the exit status that belongs to no command which was run.
const failed = 125

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	var status exitStatus
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, &status):
		os.Exit(int(status))
	default:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(failed)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("no command; one of up, down, run, power-cut, boot, exec, kubectl, shell, collect, build, driver-image")
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("no command %q", args[0])
	}
	err := command.run(ctx, args[1:])
	if errors.Is(err, errUsage) {
		return fmt.Errorf("usage: cluster %s", strings.TrimSpace(args[0]+" "+command.usage))
	}
	return err
}

// errUsage is the error of a command that was given too much or too little.
var errUsage = errors.New("usage")
