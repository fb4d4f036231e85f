package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi/csitest"
)

// Who is asked is whoever serves on the socket.
func TestOrphansOfASocket(t *testing.T) {
	w := csitest.NewWorldOf(t.TempDir(), 1<<30)
	endpoint := "unix://" + filepath.Join(t.TempDir(), "csi.sock")
	conn := csitest.Serve(t, w.Driver(), endpoint)
	ids := map[string]string{}
	for _, name := range []string{"kept", "lost"} {
		answer, err := csipb.NewControllerClient(conn).CreateVolume(t.Context(), &csipb.CreateVolumeRequest{
			Name: name, CapacityRange: &csipb.CapacityRange{RequiredBytes: 64 << 20},
			VolumeCapabilities: []*csipb.VolumeCapability{{
				AccessType: &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}},
				AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			}},
		})
		must0(t, err)
		ids[name] = answer.GetVolume().GetVolumeId()
	}
	found, err := orphansOf(t.Context(), endpoint, func(context.Context) (map[string]bool, error) {
		return map[string]bool{ids["kept"]: true}, nil
	})
	must0(t, err)
	if want := (orphan{ids["lost"], w.Node, 64 << 20}); len(found) != 1 || found[0] != want {
		t.Errorf("there are %v, want %v", found, want)
	}
	var b strings.Builder
	must0(t, printOrphans(&b, found))
	if text := b.String(); !strings.Contains(text, ids["lost"]) || !strings.Contains(text, "64 MiB") {
		t.Errorf("it prints\n%s", text)
	}

	_, err = program(t, "volumes", "--orphans")
	if err == nil || !strings.Contains(err.Error(), "controller") {
		t.Errorf("outside of a cluster: %v", err)
	}
}
