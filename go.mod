module github.com/csi-dmthin/csi-dmthin

go 1.26.0

require (
	github.com/moby/sys/mountinfo v0.7.2
	github.com/spf13/cobra v1.10.2
	golang.org/x/sys v0.49.0
	k8s.io/klog/v2 v2.140.0
	k8s.io/mount-utils v0.37.2
	k8s.io/utils v0.0.0-20260626114624-be93311217bd
)

require (
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
)
