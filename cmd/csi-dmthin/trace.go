package main

import (
	"time"

	"k8s.io/klog/v2"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// traced is a kernel whose every request is logged at -v=4.
type traced struct{ dm.Kernel }

func (k traced) Do(r dm.Request) (dm.Reply, error) {
	begin := time.Now()
	reply, err := k.Kernel.Do(r)
	klog.V(4).InfoS("Asked device-mapper", "request", r.String(), "took", time.Since(begin), "err", err)
	return reply, err
}
