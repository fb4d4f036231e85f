// Package sanity runs the CSI conformance suite (kubernetes-csi/csi-test) on the driver:
// on a simulated machine, and in the box on a real kernel.
package sanity

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	csisanity "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
	"github.com/csi-dmthin/csi-dmthin/pkg/graphdriver"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// The suite runs once in a process, so each run is a process of its own, which this
// variable tells what to run: a machine, an access type, and a file system.
const runVariable = "SANITY_RUN"

var uses = [][2]string{{"mount", "ext4"}, {"mount", "xfs"}, {"block", ""}}

// On a simulated machine.
func TestSanity(t *testing.T) { runAll(t, "simulated") }

// In a cluster, where the controller's calls go by way of a gateway.
func TestSanityOfGateway(t *testing.T) { runAll(t, "cluster") }

// On a real kernel.
func TestKernelSanity(t *testing.T) {
	_ = dmtest.RequireKernel(t).Close() // it was only asked for
	runAll(t, "kernel")
}

func runAll(t *testing.T, machine string) {
	for _, use := range uses {
		t.Run(strings.TrimSuffix(use[0]+" "+use[1], " "), func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestSuite$", "-test.timeout=5m")
			c.Env = append(os.Environ(), runVariable+"="+strings.Join([]string{machine, use[0], use[1]}, " "))
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Log(summary(string(out)))
		})
	}
}

// summary returns the suite's own line about how many of it passed.
func summary(out string) string {
	var last []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "Passed") || strings.Contains(line, "Ran ") {
			last = append(last, strings.TrimSpace(line))
		}
	}
	return strings.Join(last, "; ")
}

// TestSuite is one run, of one machine.
func TestSuite(t *testing.T) {
	run := strings.Split(os.Getenv(runVariable), " ")
	if len(run) != 3 {
		t.Skip("it is run by TestSanity and TestKernelSanity")
	}
	dir := t.TempDir()
	driver := csitest.NewWorld(dir).Driver()
	if run[0] == "kernel" {
		driver = kernelDriver(dir)
	}
	endpoint := "unix://" + filepath.Join(dir, "csi.sock")
	csitest.Serve(t, driver, endpoint)
	c := configure(t, endpoint, dir, run[1], run[2])
	if run[0] == "cluster" {
		c.ControllerAddress = serveGateway(t, driver, dir)
	}
	csisanity.Test(t, c)
}

const gib = 1 << 30

func configure(t *testing.T, endpoint, dir, accessType, fs string) csisanity.TestConfig {
	t.Helper()
	c := csisanity.NewTestConfig()
	c.Address = endpoint
	c.TargetPath, c.StagingPath = filepath.Join(dir, "target"), filepath.Join(dir, "staging")
	c.TestVolumeSize, c.TestVolumeExpandSize, c.TestVolumeAccessType = gib, 2*gib, accessType
	if fs != "" {
		file := filepath.Join(dir, "parameters.yaml")
		if err := os.WriteFile(file, []byte("csi.storage.k8s.io/fstype: "+fs+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.TestVolumeParametersFile = file
	}
	return c
}

// kernelDriver is a driver of a pool on files.
func kernelDriver(dir string) *csi.Driver {
	root := filepath.Join(dir, "pool")
	return csi.New(csi.Options{
		Version: "test", Node: "node", KubeletDir: dir, Host: csi.ThisHost{},
		Pools: []*csi.Pool{{Name: plugin.DefaultPool, Open: func() (*graphdriver.Driver, error) {
			host, err := deviceset.ThisMachine()
			if err != nil {
				return nil, err
			}
			set, err := deviceset.Open(host, root, true, []string{
				"dm.loopdatasize=16G", "dm.loopmetadatasize=16M", "dm.use_deferred_deletion=false",
				"dm.overprovision_ratio=0", "dm.min_free_space=0%", // the box has no such disk
			}, nil, nil)
			if err != nil {
				return nil, errors.Join(err, host.Close())
			}
			return graphdriver.New(set, root, nil, nil)
		}}},
	})
}
