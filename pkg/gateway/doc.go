// Package gateway joins a controller with the agents of many nodes.
//
// An Agent dials the controller and serves CSI over the connection that it dialled, so
// that no node listens. A Gateway admits agents, and answers CSI's Controller service by
// asking the agent that has the pool. It keeps no volume in mind: ids say whose they are,
// and what it remembers (who is connected, who was, which names have an attempt without
// an answer) may be lost at any time.
//
// It knows nothing of storage. What it needs of Kubernetes is behind Reviewer and Vault.
package gateway
