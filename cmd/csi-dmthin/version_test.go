package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

func runVersion(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	command := versionCommand()
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	err := command.Execute()
	return out.String(), err
}

func TestVersionRefusesAnUnknownOutput(t *testing.T) {
	if out, err := runVersion(t, "-o", "yaml"); err == nil || !strings.Contains(err.Error(), `"yaml" for "-o, --output" flag: want text or json`) {
		t.Errorf("printed %q, error %v", out, err)
	}
}

func TestVersionWithoutKernel(t *testing.T) {
	v := versions{Version: "1", Go: "go1", Problem: "no control node"}
	var out strings.Builder
	if err := v.print(&out); err != nil || out.String() != "csi-dmthin 1 (go1)\nkernel: no control node\n" {
		t.Errorf("printed %q, error %v", out.String(), err)
	}
}

func TestKernelVersion(t *testing.T) {
	dmtest.RequireKernel(t)
	out, err := runVersion(t, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var v versions
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(v.DeviceMapper, "4.") || !strings.HasPrefix(v.ThinPool, "1.") || v.Problem != "" {
		t.Errorf("printed %s", out)
	}
}
