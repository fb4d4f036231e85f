package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A node that lost power is Ready in the API server's eyes for another 50 s. So it
// is only believed once it has said something since its boot, for which the boot
// number, which kubelet reports, is the witness.
func (n Node) readySince(ctx context.Context, a *api) error {
	var node struct {
		Status struct {
			NodeInfo struct{ BootID string }
		}
	}
	if err := a.get(ctx, "/api/v1/nodes/"+n.name(), &node); err != nil {
		return err
	}
	boot, err := n.bootID(ctx)
	if err != nil {
		return err
	}
	if node.Status.NodeInfo.BootID != boot {
		return errors.New("kubelet has not reported since the boot")
	}
	return a.nodeReady(ctx, n)
}

// boot is the command that does so.
func boot(ctx context.Context, args []string) error {
	p, n, err := nodeArgument(args)
	if err != nil {
		return err
	}
	s := newSteps()
	if err := n.boot(p); err != nil {
		return err
	}
	if err := awaitNode(ctx, n); err != nil {
		return err
	}
	s.done("%s ready", n.name())
	return nil
}

// powerCut is the command that does so.
func powerCut(_ context.Context, args []string) error {
	_, n, err := nodeArgument(args)
	if err != nil {
		return err
	}
	if !n.running() {
		return fmt.Errorf("%s has no power already", n.name())
	}
	return n.cutPower()
}

func nodeArgument(args []string) (*Plan, Node, error) {
	if len(args) != 1 {
		return nil, 0, errUsage
	}
	p, err := readPlan()
	if err != nil {
		return nil, 0, err
	}
	n, err := p.node(args[0])
	return p, n, err
}

// bootID asks the node's kernel.
func (n Node) bootID(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return n.ask(ctx, "cat", "/proc/sys/kernel/random/boot_id")
}
