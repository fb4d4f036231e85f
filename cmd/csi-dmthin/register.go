package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/plugin"
)

// A registrar makes the driver known to the kubelet: it serves a socket in a folder that
// the kubelet watches, and is asked there for the driver's own.
type registrar struct {
	registration.UnimplementedRegistrationServer

	endpoint string // path of the driver's socket, as the kubelet sees it

	mu  sync.Mutex
	err error // why it is not registered
}

var errNotRegistered = errors.New("the kubelet has not asked for the driver yet")

func newRegistrar(endpoint string) *registrar {
	return &registrar{endpoint: endpoint, err: errNotRegistered}
}

// serve serves the registration until ctx ends, and takes the socket away. The driver's
// own must be served by then: the kubelet calls it at once.
func (r *registrar) serve(ctx context.Context, dir string, failed chan<- error) (stop func(), err error) {
	path := filepath.Join(dir, plugin.Name+"-reg.sock")
	l, err := csi.Listen(ctx, "unix://"+path)
	if err != nil {
		return nil, fmt.Errorf("--registration-dir: %w", err)
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, r)
	go func() { failed <- server.Serve(l) }()
	return func() {
		server.Stop()
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			klog.ErrorS(err, "The kubelet may go on asking for a driver that has ended")
		}
	}, nil
}

// GetInfo tells the kubelet where the driver is. It asks again after a restart of its own.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: plugin.Name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus hears whether the kubelet has taken the driver. It tries again
// by itself where it has not, so that is no reason to end.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	var err error
	if !status.PluginRegistered {
		err = fmt.Errorf("the kubelet refuses the driver: %s", status.Error)
		klog.ErrorS(err, "Not registered")
	} else {
		klog.InfoS("Registered with the kubelet")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	return &registration.RegistrationStatusResponse{}, nil
}

// ready returns why the driver is not registered.
func (r *registrar) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
