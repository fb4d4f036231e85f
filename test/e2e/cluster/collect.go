package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// collect is the command that gathers what is to be known of a failure.
func collect(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	p, err := readPlan()
	if err != nil {
		return err
	}
	folder, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	return p.collectInto(ctx, newSteps(), folder)
}

// collectTime is how long it may take, whatever state the cluster is in.
const collectTime = 2 * time.Minute

// collectInto gathers all logs, the cluster's objects, and what each node's kernel
// has. What cannot be had is named in its file: a broken cluster is the usual case.
func (p *Plan) collectInto(ctx context.Context, s *steps, folder string) error {
	if _, err := os.Stat(home); err != nil {
		return nil // it never came to be
	}
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	errs := []error{copyLogs(p, folder)}
	if _, err := os.Stat(kubeconfig("admin")); err == nil {
		errs = append(errs, p.collectObjects(ctx, filepath.Join(folder, "objects")))
	}
	for _, n := range p.nodes() {
		if n.running() {
			errs = append(errs, n.collectState(ctx, filepath.Join(folder, n.name())))
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		s.done("logs and state in %s", folder)
	} else {
		s.done("logs and state in %s, not complete: %v", folder, err)
	}
	return err
}

// copyLogs copies those of the control plane and those of the nodes.
func copyLogs(p *Plan, folder string) error {
	errs := []error{copyFiles(filepath.Join(folder, "control"), filepath.Join(logs(), "*"))}
	for _, n := range p.nodes() {
		errs = append(errs, copyFiles(filepath.Join(folder, n.name()), filepath.Join(n.log(), "*")))
	}
	return errors.Join(errs...)
}

func copyFiles(folder, pattern string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(folder, 0o755)}
	for _, file := range files {
		errs = append(errs, copyFile(filepath.Join(folder, filepath.Base(file)), file, 0o644))
	}
	return errors.Join(errs...)
}

// collectState asks the node's kernel.
func (n Node) collectState(ctx context.Context, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var errs []error
	for name, command := range map[string]string{
		"dmsetup.txt":   "dmsetup ls --tree; dmsetup table; dmsetup status; dmsetup info -c",
		"losetup.txt":   "losetup --list --output-all",
		"mountinfo.txt": "cat /proc/self/mountinfo",
		"dmesg.txt":     "dmesg",
		"disk.txt":      "ls -lR /dev/disk; lsblk; df -a; ls -laR /var/lib/csi-dmthin | head -n 1000",
		"processes.txt": "ps -ef --forest",
		"iptables.txt":  "iptables-save",
		"network.txt":   "ip address; ip route",
		"images.txt":    "ctr --namespace k8s.io images list; ctr --namespace k8s.io containers list; ctr --namespace k8s.io tasks list",
	} {
		errs = append(errs, saveOutput(filepath.Join(folder, name), func(out io.Writer) error {
			ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			_, err := n.run(ctx, out, out, "sh", "-c", command)
			return err
		}))
	}
	return errors.Join(errs...)
}

// collectObjects asks the API server.
func (p *Plan) collectObjects(ctx context.Context, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	save := func(name string, args ...string) error {
		return saveOutput(filepath.Join(folder, name), func(out io.Writer) error {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			cmd := kubectl(ctx, p, append([]string{"--request-timeout=10s"}, args...)...)
			cmd.Stdout, cmd.Stderr = out, out
			return inNetwork(cmd.Run)
		})
	}
	errs := []error{
		save("all.txt", "get", "all,pv,pvc,events", "-A", "-o", "wide"),
		save("nodes.txt", "describe", "nodes"),
		save("storage.txt", "get", "storageclass,csidriver,csinode,csistoragecapacity,volumeattachment,lease,configmap", "-A", "-o", "yaml"),
		save("snapshots.txt", "get", "volumesnapshotclass,volumesnapshotcontent,volumesnapshot,"+
			"volumegroupsnapshotclass,volumegroupsnapshotcontent,volumegroupsnapshot", "-A", "-o", "yaml"),
		save("volumes.txt", "get", "pv,pvc", "-A", "-o", "yaml"),
	}
	pods, err := p.pods(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, pod := range pods {
		name := pod.Metadata.Namespace + "_" + pod.Metadata.Name
		in := []string{"--namespace", pod.Metadata.Namespace}
		if !pod.well() {
			errs = append(errs, save(name+".txt", append(in, "describe", "pod", pod.Metadata.Name)...))
		}
		logs := append(in, "logs", pod.Metadata.Name, "--all-containers", "--prefix", "--timestamps", "--ignore-errors")
		errs = append(errs, save(name+".log", logs...))
		if pod.restarted() {
			errs = append(errs, save(name+".previous.log", append(logs, "--previous")...))
		}
	}
	return errors.Join(errs...)
}

// A pod is what we read of one.
type pod struct {
	Metadata struct{ Namespace, Name string }
	Status   struct {
		Phase                 string
		ContainerStatuses     []containerStatus
		InitContainerStatuses []containerStatus
	}
}

type containerStatus struct {
	Ready        bool
	RestartCount int
}

// well tells whether nobody needs a description of the pod.
func (p pod) well() bool {
	ready := true
	for _, c := range p.Status.ContainerStatuses {
		ready = ready && c.Ready
	}
	return p.Status.Phase == "Succeeded" || p.Status.Phase == "Running" && ready
}

func (p pod) restarted() bool {
	for _, c := range append(p.Status.ContainerStatuses, p.Status.InitContainerStatuses...) {
		if c.RestartCount > 0 {
			return true
		}
	}
	return false
}

func (p *Plan) pods(ctx context.Context) ([]pod, error) {
	var stdout, stderr bytes.Buffer
	cmd := kubectl(ctx, p, "get", "pods", "-A", "-o", "json", "--request-timeout=10s")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := inNetwork(cmd.Run); err != nil {
		return nil, fmt.Errorf("list pods: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var list struct{ Items []pod }
	return list.Items, json.Unmarshal(stdout.Bytes(), &list)
}

// saveOutput writes what comes out, and at its end why there is no more.
func saveOutput(file string, do func(out io.Writer) error) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := do(out); err != nil {
		fmt.Fprintln(out, err)
	}
	return out.Close()
}
