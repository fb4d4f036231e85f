package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// upFlags sets the flags that say what cluster is wanted.
func upFlags(flags *flag.FlagSet, p *Plan) {
	flags.IntVar(&p.Nodes, "nodes", 2, "`number` of nodes")
	flags.StringVar(&p.Memory, "mem", "4G", "`size` of a node's memory")
	flags.StringVar(&p.FeatureGates, "feature-gates", "", "`gates` of Kubernetes, as A=true,B=false")
	flags.Func("image", "docker `archive` of images for the nodes; may be repeated", func(s string) (err error) {
		if s, err = filepath.Abs(s); err == nil {
			_, err = os.Stat(s)
		}
		p.Images = append(p.Images, s)
		return err
	})
}

var memoryForm = regexp.MustCompile(`^[1-9][0-9]*[MG]$`)

func (p *Plan) check() error {
	switch {
	case p.Nodes < 1 || p.Nodes > maxNodes:
		return fmt.Errorf("a cluster of %d nodes: 1 to %d can be", p.Nodes, maxNodes)
	case !memoryForm.MatchString(p.Memory):
		return fmt.Errorf("memory %q is not like 512M or 2G", p.Memory)
	case slices.ContainsFunc(p.Images, func(s string) bool { return strings.HasPrefix(s, home+"/") }):
		return fmt.Errorf("no image can come from %s, which a new cluster empties", home)
	}
	return nil
}

// up is the command that brings up a cluster that stays.
func up(ctx context.Context, args []string) error {
	var p Plan
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	upFlags(flags, &p)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errUsage
	}
	s := newSteps()
	lock, err := claim(s)
	if err != nil {
		return err
	}
	defer lock.release()
	if err := p.bringUp(ctx, s); err != nil {
		_ = p.collectInto(context.WithoutCancel(ctx), s, failureFolder())
		return errors.Join(err, removeCluster())
	}
	if err := markKept(); err != nil {
		return err
	}
	s.done("up: `cluster kubectl get nodes`, or KUBECONFIG=%s in `cluster shell`", kubeconfig("admin"))
	return nil
}

// failureFolder is where the logs of a cluster that would not come up go.
func failureFolder() string {
	return filepath.Join(os.TempDir(), "csi-dmthin-e2e-failure-"+time.Now().Format("150405"))
}

// bringUp makes the cluster, with the lock held.
func (p *Plan) bringUp(ctx context.Context, s *steps) error {
	if err := p.check(); err != nil {
		return err
	}
	if err := p.provide(ctx); err != nil {
		return err
	}
	s.done("programs and images at hand")
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if err := p.bootNodes(ctx); err != nil {
		return err
	}
	s.done("%d nodes booting", p.Nodes)
	if err := startControlPlane(ctx, p); err != nil {
		return err
	}
	s.done("control plane ready")
	if err := p.awaitNodes(ctx, s); err != nil {
		return err
	}
	// With one node first, all pods would be there.
	if err := applyManifests(ctx, p); err != nil {
		return err
	}
	s.done("manifests applied")
	return p.awaitSystemPods(ctx, s)
}

// provide builds what the cache lacks.
func (p *Plan) provide(ctx context.Context) error {
	tree, err := sourceTree()
	if err != nil {
		return err
	}
	box, err := boxProgram()
	if err != nil {
		return err
	}
	built, err := buildAll(ctx, tree)
	if err != nil {
		return err
	}
	images, err := makeImages(ctx, tree, built)
	if err != nil {
		return err
	}
	p.Programs, p.Manifests = built.folders(), built["sidecars"]
	p.NodeDisk, err = makeNodeDisk(ctx, box, built, images)
	return err
}

// build is the command that does no more than that.
func build(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return errUsage
	}
	s := newSteps()
	if err := new(Plan).provide(ctx); err != nil {
		return err
	}
	s.done("programs and images at hand")
	return nil
}

// prepare makes the cluster's folder, its network and its disks.
func (p *Plan) prepare(ctx context.Context) error {
	if err := os.MkdirAll(logs(), 0o755); err != nil {
		return err
	}
	if err := p.write(); err != nil {
		return err
	}
	if err := copyOwnPrograms(); err != nil {
		return err
	}
	if err := makeSecrets(p); err != nil {
		return err
	}
	return makeNetwork(ctx, p)
}

// bootNodes boots them before there is a control plane, which they will find.
func (p *Plan) bootNodes(ctx context.Context) error {
	for _, n := range p.nodes() {
		if err := n.makeDisks(ctx, p); err != nil {
			return err
		}
		if err := n.boot(p); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) awaitNodes(ctx context.Context, s *steps) error {
	waits := map[string]func() error{}
	for _, n := range p.nodes() {
		waits[n.name()] = func() error { return awaitNode(ctx, n) }
	}
	return awaitAll(s, waits)
}

func (p *Plan) awaitSystemPods(ctx context.Context, s *steps) error {
	api, err := newAPI()
	if err != nil {
		return err
	}
	waits := map[string]func() error{}
	for _, deployment := range systemPods {
		waits[deployment] = func() error {
			return poll(ctx, nodeTime, deployment, func() error { return api.available(ctx, deployment) })
		}
	}
	return awaitAll(s, waits)
}

// awaitAll waits for several things at once.
func awaitAll(s *steps, waits map[string]func() error) error {
	var (
		group sync.WaitGroup
		lock  sync.Mutex
		errs  []error
	)
	for name, wait := range waits {
		group.Go(func() {
			err := wait()
			lock.Lock()
			defer lock.Unlock()
			errs = append(errs, err)
			if err == nil {
				s.done("%s ready", name)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}
