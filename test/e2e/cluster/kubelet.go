package main

import (
	"errors"
	"os"
	"path/filepath"
)

const kubeletConfig = "/run/kubelet.yaml"

// writeConfigs writes those of the node's daemons.
func (n Node) writeConfigs() error {
	if err := os.MkdirAll(cniConfig, 0o755); err != nil {
		return err
	}
	return errors.Join(
		writeContainerdConfig(),
		os.WriteFile(filepath.Join(cniConfig, "10-e2e.conflist"), []byte(n.cni()), 0o644),
		os.WriteFile(kubeletConfig, []byte(n.kubelet()), 0o644),
	)
}

func (n Node) kubeletArgs() []string {
	return []string{
		"--config=" + kubeletConfig,
		"--kubeconfig=" + kubeconfig(n.name()),
		"--hostname-override=" + n.name(),
		"--node-ip=" + n.address(),
	}
}

func (n Node) proxyArgs() []string {
	return []string{
		"--proxy-mode=iptables",
		"--kubeconfig=" + kubeconfig("proxy"),
		"--hostname-override=" + n.name(),
		"--cluster-cidr=" + pods,
		"--conntrack-max-per-core=0", // as it is
	}
}

// cni connects the node's pods by a bridge, and does no more: each plugin costs a pod
// a tenth of a second. There are no host ports.
func (n Node) cni() string {
	return `{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{
	"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
	"ipam": {"type": "host-local", "ranges": [[{"subnet": "` + n.pods() + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
`
}

// kubelet is its configuration. Nothing is evicted, for what kubelet takes
// for the node's disk is this machine's, with whatever else it is full of.
func (n Node) kubelet() string {
	return `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: ` + secrets("ca.crt") + `}, webhook: {enabled: true}}
authorization: {mode: Webhook}
tlsCertFile: ` + secrets(n.name()+".crt") + `
tlsPrivateKeyFile: ` + secrets(n.name()+".key") + `
cgroupDriver: cgroupfs
failSwapOn: false
containerRuntimeEndpoint: unix://` + containerdSocket + `
clusterDNS: [` + dnsService + `]
clusterDomain: cluster.local
resolvConf: ""
nodeStatusUpdateFrequency: 2s # a node that boots again tells that it is Ready with the next of these
nodeStatusReportFrequency: 5m
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
`
}
