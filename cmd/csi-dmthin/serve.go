package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
)

func serveCommand() *cobra.Command {
	var c config
	command := &cobra.Command{
		Use:   "serve",
		Short: "serve CSI for this machine's pools on one socket",
		Long: "Serve CSI (Identity, Controller and Node) for this machine's pools on one socket.\n\n" +
			"Each flag may stand in the file of --config under its own name; the command line wins.",
		Args: cobra.NoArgs,
	}
	c.flags(command.Flags())
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := c.complete(command.Flags()); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(command.Context(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		return serve(ctx, &c, nil)
	}
	return command
}

// serve serves until ctx ends, as a member of a cluster if n says how, and then ends what
// it can: calls that are being carried out are waited for, and what is mounted stays
// mounted.
func serve(ctx context.Context, c *config, n *nodeConfig) error {
	setLogging(c.LogFormat)
	neverWaitForOurselves()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var metrics *csi.Metrics // pools are opened when it is there
	driver := csi.New(csi.Options{
		Version: version, Node: c.Node, KubeletDir: c.KubeletDir, Host: csi.ThisHost{},
		Pools: c.openers(func() observer { return metrics }),
	})
	metrics = csi.NewMetrics(registry, driver, c.VolumeMetrics)

	socket, err := csi.Listen(ctx, c.Endpoint)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(driver.Intercept(metrics.ObserveCall)))
	driver.Register(server)
	failed := make(chan error, 4)
	go func() { failed <- server.Serve(socket) }()
	var member *membership
	if n != nil {
		if member, err = n.join(ctx, c, driver, metrics, failed); err != nil {
			server.Stop()
			return err
		}
		defer member.leave()
	}
	web, err := serveHTTP(ctx, c.HTTP, c.Endpoint, readiness(driver, member), registry, failed)
	if err != nil {
		server.Stop()
		return err
	}
	admin, err := c.serveAdmin(ctx, driver, failed)
	if err != nil {
		server.Stop()
		return err
	}
	klog.InfoS("Serving", "version", version, "endpoint", c.Endpoint, "node", c.Node, "pools", c.Pools.names())
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	go func() { defer close(watched); driver.Watch(background, c.MeasureInterval) }()

	select {
	case <-ctx.Done():
		klog.InfoS("Ending")
	case err = <-failed:
	}
	if member != nil {
		member.leave()
	}
	stopCalls(server)
	cancel()
	<-watched
	return errors.Join(err, closeHTTP(web), closeHTTP(admin), driver.Close())
}

// readiness returns what tells whether every pool is open or known not to open, and the
// kubelet knows the driver, with notes on what is not as it should be.
func readiness(driver *csi.Driver, member *membership) func() (bool, []string) {
	return func() (bool, []string) {
		ready, notes := driver.Ready()
		if member != nil {
			joined, more := member.ready()
			ready, notes = ready && joined, append(notes, more...)
		}
		return ready, notes
	}
}

// patience is how long the end waits for calls.
const patience = 20 * time.Second

func stopCalls(server *grpc.Server) {
	done := make(chan struct{})
	go func() { defer close(done); server.GracefulStop() }()
	select {
	case <-done:
	case <-time.After(patience):
		klog.InfoS("Calls are still being carried out: not waiting for them")
		server.Stop()
	}
}

func closeHTTP(s *http.Server) error {
	if s == nil {
		return nil
	}
	return s.Close()
}

// neverWaitForOurselves has no thread of ours wait for the writing of dirty pages when it
// needs memory: they may be those of a volume that we have suspended (prctl(2),
// PR_SET_IO_FLUSHER). Threads to come inherit it. It needs CAP_SYS_RESOURCE.
func neverWaitForOurselves() {
	if _, _, err := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0); err != 0 {
		klog.InfoS("The kernel may have this process wait for its own volumes", "err", err)
	}
}

// hostname is the node's name where nobody gives one.
func hostname() string {
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name
	}
	name, _ := os.Hostname() // the check of the configuration says so if there is none
	return name
}
