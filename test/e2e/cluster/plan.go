package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// home is the cluster's folder. There is one for a machine: the memory and the two
// CPUs of a usual one suffice for no second cluster.
const home = "/var/tmp/csi-dmthin-e2e"

// The networks exist only in the cluster's namespace, so they collide with nothing.
const (
	gateway     = "10.11.0.1" // the control plane's address, too
	services    = "10.96.0.0/16"
	apiService  = "10.96.0.1" // the first of them, which Kubernetes takes for itself
	dnsService  = "10.96.0.10"
	pods        = "10.244.0.0/16"
	apiEndpoint = "https://" + gateway + ":6443"
)

// maxNodes is as far as the addresses reach.
const maxNodes = 9

// A Plan is what a cluster is made of. It lies in the cluster's folder, where the
// nodes and later commands read it.
type Plan struct {
	Nodes        int
	Memory       string   // of a node, as a kernel reads it
	Images       []string // docker archives that each node is given, beyond the usual ones
	FeatureGates string   // as Kubernetes' flags have them
	Programs     []string // folders with the programs
	NodeDisk     string   // the file that each node's first disk is a copy of
	Manifests    string   // folder of those that other projects publish
}

func planFile() string { return filepath.Join(home, "cluster.json") }

func (p *Plan) write() error {
	data, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(planFile(), data, 0o644)
}

// readPlan reads the plan of the cluster that is there.
func readPlan() (*Plan, error) {
	data, err := os.ReadFile(planFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("there is no cluster: `cluster up` makes one")
	}
	if err != nil {
		return nil, err
	}
	var p Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("%s: %w", planFile(), err)
	}
	return &p, nil
}

// path is what PATH has to be for the cluster's programs to be found.
func (p *Plan) path() string {
	return strings.Join(append(slices.Clone(p.Programs),
		"/usr/local/go/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"), ":")
}

// nodes returns all nodes.
func (p *Plan) nodes() (nodes []Node) {
	for i := range p.Nodes {
		nodes = append(nodes, Node(i+1))
	}
	return nodes
}

// node returns the node of a name.
func (p *Plan) node(name string) (Node, error) {
	for _, n := range p.nodes() {
		if n.name() == name {
			return n, nil
		}
	}
	return 0, fmt.Errorf("no node %q, only node1 to node%d", name, p.Nodes)
}

// A Node is the number of one, from 1.
type Node int

func (n Node) name() string    { return "node" + strconv.Itoa(int(n)) }
func (n Node) tap() string     { return "tap" + strconv.Itoa(int(n)) }
func (n Node) address() string { return fmt.Sprintf("10.11.0.%d", 10+n) }
func (n Node) pods() string    { return fmt.Sprintf("10.244.%d.0/24", n) }
func (n Node) folder() string  { return filepath.Join(home, n.name()) }
func (n Node) log() string     { return filepath.Join(n.folder(), "log") }

// logs is the folder of what the control plane says.
func logs() string { return filepath.Join(home, "log") }
