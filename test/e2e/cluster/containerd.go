package main

import "os"

const (
	containerdConfig = "/run/containerd.toml"
	containerdSocket = "/run/containerd/containerd.sock"
	cniConfig        = "/etc/cni/net.d"
)

func writeContainerdConfig() error {
	return os.WriteFile(containerdConfig, []byte(`version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '`+pauseImage+`'
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '`+cniConfig+`'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '/usr/sbin/runc'
  SystemdCgroup = false
`), 0o644)
}
