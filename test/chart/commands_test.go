package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// scratch is gone when the tests end.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "csi-dmthin"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// driver builds the driver, once.
var driver = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "csi-dmthin")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/csi-dmthin")
	build.Dir = root
	build.Stderr = os.Stderr
	return path, build.Run()
})

// The driver takes the flags and the files that the chart gives it. It is started with one
// wrong value more, of which it complains after it has read all others, so that nothing begins.
func TestTheDriverTakesIt(t *testing.T) {
	program, err := driver()
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(t *testing.T, env, args []string, last, want string) {
		t.Helper()
		command := exec.Command(program, append(args, last)...)
		command.Env = append(os.Environ(), env...)
		output, err := command.CombinedOutput()
		if err == nil || !strings.Contains(string(output), want) {
			t.Errorf("%q: want %q, have %s (%v)", command.Args[1:], want, output, err)
		}
	}
	forEachFile(t, func(t *testing.T, _ map[string]any, all objects) {
		gateway := theOnly[*appsv1.Deployment](t, all).Spec.Template.Spec.InitContainers[0]
		refuses(t, nil, gateway.Args, "--log-format=none", `--log-format: "none"`)

		for _, d := range allOf[*appsv1.DaemonSet](all) {
			c := named[*corev1.ConfigMap](t, all, d.Name)
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(c.Data["config.yaml"]), 0o600); err != nil {
				t.Fatal(err)
			}
			args := strings.Split(strings.ReplaceAll(strings.Join(d.Spec.Template.Spec.Containers[0].Args, "\n"), "/etc/csi-dmthin/config/config.yaml", file), "\n")
			nodes := []string{"any"}
			for node := range checkAgentFile(t, c).Nodes {
				nodes = append(nodes, node)
			}
			for _, node := range nodes {
				refuses(t, []string{"NODE_NAME=" + node}, args, "--controller=nowhere", `--controller: "nowhere"`)
			}
		}
	})
}
