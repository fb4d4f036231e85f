package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// The kubelet finds the socket, asks for the driver, and tells whether it has taken it.
func TestRegistration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "csi-dmthin.dev-reg.sock")
	for range 2 { // the second time over what a killed process has left
		left, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		left.(*net.UnixListener).SetUnlinkOnClose(false)
		_ = left.Close()

		r := newRegistrar("/var/lib/kubelet/plugins/csi-dmthin.dev/csi.sock")
		stop, err := r.serve(t.Context(), dir, make(chan error, 1))
		if err != nil {
			t.Fatal(err)
		}
		if r.ready() == nil {
			t.Error("it is registered, and nobody has asked")
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("the socket is open to others: %v, %v", st.Mode(), err)
		}
		conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		kubelet := registration.NewRegistrationClient(conn)
		info, err := kubelet.GetInfo(t.Context(), &registration.InfoRequest{})
		if err != nil || info.GetType() != "CSIPlugin" || info.GetName() != "csi-dmthin.dev" || info.GetEndpoint() != "/var/lib/kubelet/plugins/csi-dmthin.dev/csi.sock" || len(info.GetSupportedVersions()) == 0 {
			t.Errorf("%v, %v", info, err)
		}
		for _, status := range []*registration.RegistrationStatus{{Error: "no room"}, {PluginRegistered: true}} {
			if _, err := kubelet.NotifyRegistrationStatus(t.Context(), status); err != nil {
				t.Fatal(err)
			}
			if ready := r.ready() == nil; ready != status.GetPluginRegistered() {
				t.Errorf("after %v: %v", status, r.ready())
			}
		}
		_ = conn.Close()
		stop()
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	}
}
