// Package plugin has what the CSI plugin is called and what it calls things, wherever
// it runs: its name, its services, topology, and the ids of volumes and snapshots.
//
// It knows no storage, and no way to reach any.
package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
)

// Name is the plugin's, and the prefix of all that it names in the orchestrator.
const Name = "csi-dmthin.dev"

// TopologyKey is the key of a node in a topology.
const TopologyKey = Name + "/node"

const (
	// ParameterPrefix begins the parameters of a StorageClass that are ours.
	ParameterPrefix = Name + "/"
	// DefaultPool is the pool of volumes that name none.
	DefaultPool = "default"
)

// PoolOf returns the name of the pool that parameters ask for.
func PoolOf(parameters map[string]string) string {
	if name := parameters[ParameterPrefix+"pool"]; name != "" {
		return name
	}
	return DefaultPool
}

var topologyValue = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

// Segment is a node's name as a topology may have it: hashed where that is too long.
// Volumes carry it for as long as they are there, so this rule never changes.
func Segment(node string) string {
	if topologyValue.MatchString(node) {
		return node
	}
	sum := sha256.Sum256([]byte(node))
	return hex.EncodeToString(sum[:16])
}

// Topology is that of what is on a node.
func Topology(node string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: Segment(node)}}
}

// Includes reports whether a topology includes a node's.
func Includes(t *csi.Topology, node string) bool {
	value, ok := t.GetSegments()[TopologyKey]
	return !ok || value == Segment(node)
}

// Allows reports whether what is on a node meets a requirement.
func Allows(r *csi.TopologyRequirement, node string) bool {
	allowed := r.GetRequisite()
	if len(allowed) == 0 {
		allowed = r.GetPreferred()
	}
	for _, t := range allowed {
		if Includes(t, node) {
			return true
		}
	}
	return len(allowed) == 0
}
