package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPlanRefuses(t *testing.T) {
	good := Plan{Nodes: 2, Memory: "4G"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for _, p := range []Plan{
		{Nodes: 0, Memory: "4G"},
		{Nodes: maxNodes + 1, Memory: "4G"},
		{Nodes: 1, Memory: "4 GB"},
		{Nodes: 1, Memory: "4G", Images: []string{home + "/image.tar"}},
	} {
		if p.check() == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

func TestNodesOfAPlan(t *testing.T) {
	p := Plan{Nodes: 2}
	if n, err := p.node("node2"); err != nil || n.address() != "10.11.0.12" || n.pods() != "10.244.2.0/24" {
		t.Error(n, err)
	}
	for _, name := range []string{"", "node0", "node3", "node", "2"} {
		if _, err := p.node(name); err == nil {
			t.Errorf("%q is a node", name)
		}
	}
}

func TestNodesReachEachOthersPods(t *testing.T) {
	p := Plan{Nodes: 3}
	batch := Node(2).networkBatch(&p)
	for _, want := range []string{
		"addr add 10.11.0.12/24 dev vec0\n",
		"route add 10.244.1.0/24 via 10.11.0.11\n",
		"route add 10.244.3.0/24 via 10.11.0.13\n",
	} {
		if !strings.Contains(batch, want) {
			t.Errorf("no %q in\n%s", want, batch)
		}
	}
	if strings.Contains(batch, "10.244.2.0") {
		t.Errorf("a route to its own pods:\n%s", batch)
	}
	if outside := networkBatch(&p); strings.Count(outside, "tuntap add") != 3 {
		t.Errorf("not three taps:\n%s", outside)
	}
}

func TestFeatureGates(t *testing.T) {
	if args := (&Plan{}).gated(nil); args != nil {
		t.Error(args)
	}
	args := (&Plan{FeatureGates: "A=true"}).gated([]string{"--x"})
	if !slices.Equal(args, []string{"--x", "--feature-gates=A=true"}) {
		t.Error(args)
	}
}

func TestEnvironmentOfCommands(t *testing.T) {
	env := clusterEnv([]string{"PATH=/a", "HOME=/b"}, &Plan{Programs: []string{"/p", "/q"}})
	if i := slices.IndexFunc(env, func(s string) bool { return strings.HasPrefix(s, "PATH=") }); env[i] != "PATH=/p:/q:"+os.Getenv("PATH") {
		t.Error(env[i])
	}
	for _, want := range []string{"HOME=/b", "KUBECONFIG=" + kubeconfig("admin"), "E2E_EXEC=" + ownProgram("cluster") + " exec"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
}

func TestClockSpeedIsAdded(t *testing.T) {
	got := withClockSpeed("processor\t: 0\nflags\t\t: fpu sse2\nbogomips\t: 1\n")
	if !strings.Contains(got, "cpu MHz\t\t: ") || !strings.Contains(got, "flags\t\t: fpu sse2\n") || strings.Contains(got, "bogomips") {
		t.Error(got)
	}
}

func TestCertificatesAreTrusted(t *testing.T) {
	a := &authority{next: 1}
	var err error
	if a.key, err = newKey(); err != nil {
		t.Fatal(err)
	}
	if err := a.signItself(); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	data, err := a.sign(a.serverTemplate("node", "10.11.0.11"), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCertificate(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"10.11.0.11": true, "10.11.0.12": false} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRequiredVersion(t *testing.T) {
	const mod = "module x\n\nrequire k8s.io/kubernetes v1.2.3 // indirect\n\nrequire (\n\tk8s.io/api v0.2.3\n)\n\nreplace k8s.io/kms => k8s.io/kms v0.9.9\n"
	for module, want := range map[string]string{"k8s.io/kubernetes": "v1.2.3", "k8s.io/api": "v0.2.3", "k8s.io/kms": ""} {
		if got := requiredVersion(mod, module); got != want {
			t.Errorf("%s: %q", module, got)
		}
	}
}

func TestProcesses(t *testing.T) {
	if birth, alive := parseStat("12 (a) b (c)) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1\n"); birth != 4711 || !alive {
		t.Error(birth, alive)
	}
	if _, alive := parseStat("12 (x) Z 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n"); alive {
		t.Error("a zombie is alive")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := processOf(cmd.Process.Pid)
	if err != nil || !p.alive() {
		t.Fatal(p, err)
	}
	if read, err := parseProcess(p.String()); err != nil || read != p {
		t.Error(read, err)
	}
	if (process{p.Pid, p.Birth + 1}).alive() {
		t.Error("a later process of the same number is taken for it")
	}
	if err := p.end(10 * time.Second); err != nil || p.alive() {
		t.Error(err)
	}
	_ = cmd.Wait()
}
