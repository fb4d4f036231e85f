package main

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kubectl is a command that talks to the cluster as its administrator, when it
// is started in its network.
func kubectl(ctx context.Context, p *Plan, args ...string) *exec.Cmd {
	return command(ctx, p, append([]string{"kubectl"}, args...))
}

// command is one that finds the cluster.
func command(ctx context.Context, p *Plan, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if file, err := p.find(args[0]); err == nil {
		cmd.Path, cmd.Err = file, nil
	}
	cmd.Env = clusterEnv(os.Environ(), p)
	return cmd
}

// clusterEnv is the environment of what is run with the cluster: as it is here, and the
// cluster's programs first in PATH.
func clusterEnv(env []string, p *Plan) []string {
	self := ownProgram("cluster")
	env = slices.DeleteFunc(slices.Clone(env), func(pair string) bool { return strings.HasPrefix(pair, "PATH=") })
	return append(env,
		"PATH="+strings.Join(p.Programs, ":")+":"+os.Getenv("PATH"),
		"KUBECONFIG="+kubeconfig("admin"),
		"E2E_POWER_CUT="+self+" power-cut",
		"E2E_BOOT="+self+" boot",
		"E2E_EXEC="+self+" exec",
		"E2E_COLLECT="+self+" collect",
	)
}

// kubectlHere is the command of that name.
func kubectlHere(ctx context.Context, args []string) error {
	p, err := readPlan()
	if err != nil {
		return err
	}
	return become(kubectl(ctx, p, args...))
}

// shell is the command of that name.
func shell(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	p, err := readPlan()
	if err != nil {
		return err
	}
	return become(command(ctx, p, args))
}

// become replaces this process by the command, which a terminal likes best.
func become(cmd *exec.Cmd) error {
	if cmd.Err != nil {
		return cmd.Err
	}
	return inNetwork(func() error { return unix.Exec(cmd.Path, cmd.Args, cmd.Env) })
}
