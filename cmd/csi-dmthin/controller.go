package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/kubernetes"
)

// defaultEndpoint is where a controller serves its sidecars.
const defaultEndpoint = "unix:///csi/csi.sock"

// orphanInterval is between two looks for volumes that nobody knows.
const orphanInterval = 10 * time.Minute

// A controllerConfig is what `controller` is told.
type controllerConfig struct {
	Endpoint           string
	Listen             string
	HTTP               string
	Namespace          string
	NodeServiceAccount string
	TLSSecret          string
	CAConfigMap        string
	TLSDir             string
	LostDir            string
	LogFormat          string
}

func controllerCommand() *cobra.Command {
	var c controllerConfig
	command := &cobra.Command{
		Use:   "controller",
		Short: "serve CSI for all nodes of a Kubernetes cluster to the sidecars of a controller",
		Long: "Serve CSI for all nodes of a Kubernetes cluster, to the sidecars of a controller: the agents of\n" +
			"nodes dial it, and it asks the one that has the pool. It runs in the cluster, with a service account.",
		Args: cobra.NoArgs,
	}
	c.flags(command.Flags())
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := c.check(); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(command.Context(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		return c.run(ctx)
	}
	return command
}

func (c *controllerConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.Endpoint, "endpoint", envOr("CSI_ENDPOINT", defaultEndpoint), "where CSI is served to the sidecars: a `socket` ($CSI_ENDPOINT)")
	f.StringVar(&c.Listen, "listen", ":9443", "`address` to which the nodes' agents come")
	f.StringVar(&c.HTTP, "http", ":9808", "`address` of /metrics, /healthz and /readyz; none if empty")
	f.StringVar(&c.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "`namespace` of the controller and the agents ($POD_NAMESPACE)")
	f.StringVar(&c.NodeServiceAccount, "node-service-account", "csi-dmthin-node", "`name` of the agents' service account")
	f.StringVar(&c.TLSSecret, "tls-secret", "csi-dmthin-controller-tls", "`name` of the Secret in which the certificates are kept that the controller makes")
	f.StringVar(&c.CAConfigMap, "ca-configmap", "csi-dmthin-ca", "`name` of the ConfigMap by which agents know the controller")
	f.StringVar(&c.TLSDir, "tls-dir", "", "`directory` with tls.crt, tls.key and ca.crt, which somebody else renews; without it, the controller makes its own")
	f.StringVar(&c.LostDir, "lost-dir", "", "`directory` with a file for each pool that was given up, named by its key")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
}

func (c *controllerConfig) check() error {
	for flag, value := range map[string]string{
		"namespace": c.Namespace, "node-service-account": c.NodeServiceAccount, "tls-secret": c.TLSSecret, "ca-configmap": c.CAConfigMap,
	} {
		if value == "" {
			return fmt.Errorf("--%s is needed", flag)
		}
	}
	if _, err := csi.SocketPath(c.Endpoint); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return checkLogFormat(c.LogFormat)
}

// certificates are those of the listener to which agents come.
type certificates interface {
	TLS() *tls.Config
	Run(ctx context.Context, ready func())
}

func (c *controllerConfig) run(ctx context.Context) error {
	setLogging(c.LogFormat)
	cluster := &kubernetes.Cluster{Namespace: c.Namespace, ServiceAccount: c.NodeServiceAccount, Secret: c.TLSSecret, ConfigMap: c.CAConfigMap}
	if err := cluster.Connect(); err != nil {
		return fmt.Errorf("the cluster: %w", err)
	}
	g := gateway.New(gateway.Options{Version: version, Review: cluster, Lost: (&lostPools{dir: c.LostDir}).has})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := gateway.NewMetrics(registry, g)

	socket, err := csi.Listen(ctx, c.Endpoint)
	if err != nil {
		return err
	}
	agents, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("--listen: %w", err), socket.Close())
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(gateway.Intercept(metrics)))
	g.Register(server)
	failed := make(chan error, 3)
	go func() { failed <- server.Serve(socket) }()
	var listening atomic.Bool
	web, err := serveHTTP(ctx, c.HTTP, c.Endpoint, hasCertificate(&listening), registry, failed)
	if err != nil {
		server.Stop()
		return errors.Join(err, agents.Close())
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var keys certificates = gateway.NewAuthority(cluster)
	if c.TLSDir != "" {
		keys = gateway.NewFiles(c.TLSDir, cluster)
	}
	var all sync.WaitGroup
	all.Go(func() { g.WatchOrphans(background, orphanInterval, cluster.VolumeHandles) })
	all.Go(func() {
		keys.Run(background, func() {
			listening.Store(true)
			all.Go(func() {
				if err := g.Serve(background, agents, keys.TLS()); err != nil {
					failed <- err
				}
			})
		})
	})
	klog.InfoS("Serving", "version", version, "endpoint", c.Endpoint, "listen", c.Listen)
	select {
	case <-ctx.Done():
		klog.InfoS("Ending")
	case err = <-failed:
	}
	stopCalls(server) // they need their agents
	cancel()
	err = errors.Join(err, closeHTTP(web))
	_ = agents.Close() // it may be closed already
	all.Wait()
	return err
}

// hasCertificate is ready when the controller listens: agents look for all controllers,
// ready or not, so to wait for agents would be to wait for ever.
func hasCertificate(listening *atomic.Bool) func() (bool, []string) {
	return func() (bool, []string) {
		if !listening.Load() {
			return false, []string{"there is no certificate yet: the log says why"}
		}
		return true, nil
	}
}
