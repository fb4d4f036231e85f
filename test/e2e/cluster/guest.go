package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// beNode is the command of a node's box: it makes the node what it is, and runs its
// daemons for ever. Few processes are started on the way, for each costs 20 ms here.
func beNode(ctx context.Context, args []string) error {
	p, n, err := nodeArgument(args)
	if err != nil {
		return err
	}
	os.Setenv("PATH", legacyTables+":"+p.path())
	s := newSteps()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"identity", n.identify},
		{"modules", loadModules},
		{"network", func() error { return n.bringUpNetwork(p) }},
		{"agent", n.startAgent},
		{"clock speed", writeCPUInfo},
		{"iptables", linkLegacyTables},
		{"disks", func() error { return errors.Join(mountNodeDisk(), nameDisks()) }},
		{"configuration", n.writeConfigs},
		{"containerd", func() error { return startContainerd(ctx) }},
		{"images", func() error { return importImages(ctx, p.Images) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		s.done("%s", step.name)
	}
	keepRunning("kube-proxy", p.gated(n.proxyArgs())...)
	keepRunning("kubelet", p.gated(n.kubeletArgs())...)
	select {}
}

// logOf returns the file of a node's daemon's log, outside.
func logOf(daemon string) string { return filepath.Join(os.Getenv("BOX_OUT"), daemon+".log") }

// keepRunning starts a daemon, and again when it has ended, as systemd would.
func keepRunning(daemon string, args ...string) {
	go func() {
		for {
			if err := runLogged(daemon, args...); err != nil {
				fmt.Fprintf(os.Stderr, "%s %s: %v\n", time.Now().Format(time.TimeOnly), daemon, err)
			}
			time.Sleep(time.Second)
		}
	}()
}

func runLogged(daemon string, args ...string) error {
	log, err := os.OpenFile(logOf(daemon), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(daemon, args...)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd.Run()
}

// identify gives the node a name of its own. This machine's number is no secret
// of the nodes that are made of its files, so each has another.
func (n Node) identify() error {
	return errors.Join(
		unix.Sethostname([]byte(n.name())),
		os.WriteFile("/etc/hostname", []byte(n.name()+"\n"), 0o644),
		os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n"+n.address()+" "+n.name()+"\n"), 0o644),
		os.WriteFile("/etc/machine-id", []byte(fmt.Sprintf("%032x\n", int(n))), 0o444),
		os.Chdir("/"),
	)
}

// loadModules loads what pods' networks are made of. Some are built in, or come when
// they are needed, which depends on the kernel.
func loadModules() error {
	_ = exec.Command("modprobe", "--all", "--quiet",
		"veth", "bridge", "br_netfilter", "nf_conntrack", "xt_conntrack", "iptable_nat", "iptable_filter").Run()
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
		// Else a pod could not reach a Service whose pod is on the same bridge.
		os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0),
	)
}

func (n Node) bringUpNetwork(p *Plan) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(n.networkBatch(p))
	return runQuietly(cmd)
}

// networkBatch is what `ip` is told in the node. The card's address is the same after each
// boot: the others remember it.
func (n Node) networkBatch(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "link set vec0 address 02:00:0a:0b:00:%02x\n", 10+int(n))
	fmt.Fprintf(&b, "addr add %s/24 dev vec0\nlink set vec0 up\n", n.address())
	fmt.Fprintf(&b, "route add default via %s\n", gateway)
	for _, other := range p.nodes() {
		if other != n {
			fmt.Fprintf(&b, "route add %s via %s\n", other.pods(), other.address())
		}
	}
	return b.String()
}

func (n Node) startAgent() error {
	listener, err := net.Listen("tcp", n.agentAddress())
	if err != nil {
		return err
	}
	go serveAgent(listener)
	return nil
}

// writeCPUInfo shows a clock speed: kubelet refuses a machine that has none, and user mode
// Linux tells none.
func writeCPUInfo() error {
	const file, copy = "/proc/cpuinfo", "/run/cpuinfo"
	said, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(copy, []byte(withClockSpeed(string(said))), 0o444); err != nil {
		return err
	}
	return unix.Mount(copy, file, "", unix.MS_BIND, "")
}

// withClockSpeed is a cpuinfo of one CPU with what kubelet looks for, and with the flags of
// the given one.
func withClockSpeed(cpuinfo string) string {
	var b strings.Builder
	b.WriteString("processor\t: 0\nvendor_id\t: GenuineIntel\nphysical id\t: 0\nsiblings\t: 1\n" +
		"core id\t\t: 0\ncpu cores\t: 1\ncpu MHz\t\t: 2500.000\n")
	for line := range strings.Lines(cpuinfo) {
		if strings.HasPrefix(line, "flags") {
			b.WriteString(line)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// legacyTables is a folder with iptables that do without nf_tables, of which user mode
// Linux's kernel lacks the ip family.
const legacyTables = "/run/iptables-legacy"

func linkLegacyTables() error {
	const program = "/usr/sbin/xtables-legacy-multi"
	if !isFile(program) {
		return fmt.Errorf("no %s: `tools/setup e2e`", program)
	}
	if err := os.MkdirAll(legacyTables, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			errs = append(errs, os.Symlink(program, filepath.Join(legacyTables, name+verb)))
		}
	}
	return errors.Join(errs...)
}

func startContainerd(ctx context.Context) error {
	keepRunning("containerd", "--config", containerdConfig)
	return waitForContainerd(ctx)
}

// importImages unpacks archives, unless an earlier boot did. containerd does not make sure
// that their files are on the disk, which may lose power at any time.
func importImages(ctx context.Context, archives []string) error {
	for _, archive := range archives {
		sum, err := sha256Of(archive)
		if err != nil {
			return err
		}
		mark := filepath.Join(nodeDisk, "imported", sum)
		if isFile(mark) {
			continue
		}
		if err := importImage(ctx, archive); err != nil {
			return err
		}
		unix.Sync()
		if err := errors.Join(os.MkdirAll(filepath.Dir(mark), 0o755), os.WriteFile(mark, nil, 0o644)); err != nil {
			return err
		}
	}
	return nil
}
