package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
)

// A nodeConfig is what `node` is told, beside what `serve` is.
type nodeConfig struct {
	RegistrationDir string
	Controller      string
	ControllerCA    string
	Token           string

	find func(context.Context) ([]string, error)
}

func nodeCommand() *cobra.Command {
	var c config
	var n nodeConfig
	command := &cobra.Command{
		Use:   "node",
		Short: "serve CSI for this node of a Kubernetes cluster: its kubelet, and the controllers",
		Long: "Serve CSI for this node of a Kubernetes cluster: to its kubelet, with which it registers, and to the\n" +
			"controllers, which it dials.\n\n" +
			"Each flag may stand in the file of --config under its own name; the command line wins. Only there,\n" +
			"`nodes` has pools for single nodes, by the nodes' names, which take the place of the others.",
		Args: cobra.NoArgs,
	}
	n.register(command.Flags(), &c)
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := c.complete(command.Flags()); err != nil {
			return err
		}
		if err := n.complete(&c); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(command.Context(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		return serve(ctx, &c, &n)
	}
	return command
}

// register makes the flags of serve and those of node known.
func (n *nodeConfig) register(f *pflag.FlagSet, c *config) {
	c.flags(f)
	n.flags(f)
	f.Var(&c.perNode, "nodes", "")
	f.Lookup("nodes").Hidden = true // it is for the file
}

func (n *nodeConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&n.RegistrationDir, "registration-dir", "", "`directory` in which the kubelet looks for plugins (plugins_registry in --kubelet-dir)")
	f.StringVar(&n.Controller, "controller", gateway.ServerName+":9443", "`address` of the controllers: a name and a port, each address of the name is one")
	f.StringVar(&n.ControllerCA, "controller-ca", "/etc/csi-dmthin/ca/ca.crt", "`file` with the certificates by which controllers are known, read at each dial")
	f.StringVar(&n.Token, "token", "/var/run/secrets/csi-dmthin.dev/gateway/token", "`file` with the token that proves this node to controllers")
}

func (n *nodeConfig) complete(c *config) error {
	if n.RegistrationDir == "" {
		n.RegistrationDir = filepath.Join(c.KubeletDir, "plugins_registry")
	}
	var err error
	if n.find, err = gateway.Lookup(n.Controller); err != nil {
		return fmt.Errorf("--controller: %q: want NAME:PORT", n.Controller)
	}
	return nil
}

// agent returns what serves the driver to the controllers.
func (n *nodeConfig) agent(driver *csi.Driver) *gateway.Agent {
	return &gateway.Agent{
		Version: version, Find: n.find,
		Token: func() (string, error) {
			text, err := os.ReadFile(n.Token)
			return strings.TrimSpace(string(text)), err
		},
		Trust: func() (*x509.CertPool, error) {
			text, err := os.ReadFile(n.ControllerCA)
			if errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("%w: the controller has not published its certificate yet", err)
			}
			trust := x509.NewCertPool()
			if err == nil && !trust.AppendCertsFromPEM(text) {
				err = fmt.Errorf("%s has no certificate", n.ControllerCA)
			}
			return trust, err
		},
		Pools: func() (all []gateway.Pool) {
			for _, p := range driver.Pools {
				all = append(all, gateway.Pool{Name: p.Name, Secret: p.Secret(), Open: p.IsOpen()})
			}
			return all
		},
		Services: driver.RegisterController,
	}
}

// A membership is the driver's in a cluster.
type membership struct {
	registrar *registrar
	agent     *gateway.Agent
	leave     func()
}

// join registers the driver with the kubelet, and goes to the controllers.
func (n *nodeConfig) join(ctx context.Context, c *config, driver *csi.Driver, metrics *csi.Metrics, failed chan<- error) (*membership, error) {
	endpoint, err := csi.SocketPath(c.Endpoint)
	if err != nil {
		return nil, err
	}
	m := &membership{registrar: newRegistrar(endpoint), agent: n.agent(driver)}
	m.agent.Intercept = driver.Intercept(metrics.ObserveCall)
	unregister, err := m.registrar.serve(ctx, n.RegistrationDir, failed)
	if err != nil {
		return nil, err
	}
	dialling, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { m.agent.Run(dialling) })
	m.leave = sync.OnceFunc(func() {
		unregister()
		hangUp()
		all.Wait()
	})
	return m, nil
}

// ready tells whether the kubelet knows the driver. A controller's absence makes no
// difference: what is mounted does not need one.
func (m *membership) ready() (ready bool, notes []string) {
	if err := m.registrar.ready(); err != nil {
		notes = append(notes, err.Error())
	}
	ready = len(notes) == 0
	links := m.agent.Connections()
	for _, address := range slices.Sorted(maps.Keys(links)) {
		if err := links[address]; err != nil {
			notes = append(notes, fmt.Sprintf("controller %s: %v", address, err))
		}
	}
	if len(links) == 0 {
		notes = append(notes, "no controller is found")
	}
	return ready, notes
}

// nodePools are pools of single nodes, by the nodes' names.
type nodePools map[string]poolConfigs

// String prints nothing: it is no flag for people.
func (nodePools) String() string { return "" }

// Type names the value.
func (nodePools) Type() string { return "nodes" }

// Set refuses what does not come from a file.
func (nodePools) Set(string) error { return errors.New("only in the file of --config") }

// setMap takes the nodes of a file.
func (n *nodePools) setMap(value any) error {
	nodes, ok := value.(map[string]any)
	if !ok {
		return errors.New("want nodes by name, each with its pools")
	}
	*n = nodePools{}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		given, _ := nodes[name].(map[string]any)
		if len(given) != 1 || given["pools"] == nil {
			return fmt.Errorf("%s: want pools, and nothing else", name)
		}
		var pools poolConfigs
		if err := pools.setMap(given["pools"]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		(*n)[name] = pools
	}
	return nil
}
