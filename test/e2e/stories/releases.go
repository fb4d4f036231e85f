package main

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func upgraded(s *scene) {
	s.claim("data", "128Mi", ext4Class)
	s.start("writer", with("data"), writing("data"))
	s.acked("writer")
	s.must(s.upgrade(s.ctx, "log.level=4"), "upgrade")
	s.agentsReady()
	s.noWriteFailed("writer")
	s.claim("new", "128Mi", ext4Class)
	s.start("pod", with("new")) // whichever controllers there are by now
	s.noWriteFailed("writer")
	s.must(s.rollback(s.ctx), "roll back")
	s.driverReady()
	s.noWriteFailed("writer")
}

func reinstalled(s *scene) {
	s.claim("data", "128Mi", ext4Class)
	node := s.start("writer", with("data"), writing("data"))
	acked := s.acked("writer")
	s.must(s.uninstall(s.ctx), "uninstall")
	s.finally(func() { s.must(s.upgrade(s.ctx), "install") })
	s.driverGone()
	s.noWriteFailed("writer")
	s.must(s.install(s.ctx), "install")
	s.noWriteFailed("writer")
	s.stop("writer")
	expect(s, "the reader's node", s.start("reader", with("data")), node)
	if records := s.records("reader", "/data/log"); records < acked {
		s.fail("there are %d records, and %d were safe", records, acked)
	}
	s.nothingLostOrDoubled()
}

// driverGone waits until no pod of the driver is there.
func (s *scene) driverGone() {
	s.until(patience, "the driver's pods are gone", func() string {
		list, err := s.api.CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{})
		return remaining(err, len(list.Items), "pods")
	})
}

// remains prints what there may be of the driver on a node that has none. What it keeps on
// disk stays, and so does the file system below it.
const remains = `
	grep -E '^/dev/mapper/csi-dmthin-|/csi-dmthin\.dev/' /proc/mounts
	for f in /sys/block/dm-*/dm/name; do [ -e $f ] && grep -H csi-dmthin $f; done
	for f in /sys/block/loop*/loop/backing_file; do [ -e $f ] && grep -H csi-dmthin $f; done
	ls -d /var/lib/kubelet/plugins_registry/*csi-dmthin* /var/lib/kubelet/plugins/csi-dmthin.dev/*.sock 2>/dev/null
	true`

func uninstalled(s *scene) {
	for _, what := range []string{"volumes", "snapshots"} {
		kept, err := s.kept(what)
		s.must(err, "list %s", what)
		if len(kept) > 0 {
			s.fail("stories have left %s: %v", what, kept)
		}
	}
	s.must(s.uninstall(s.ctx), "uninstall")
	s.driverGone()
	s.until(patience, "capacities are gone", func() string {
		list, err := s.api.StorageV1().CSIStorageCapacities("").List(s.ctx, metav1.ListOptions{})
		return remaining(err, len(list.Items), "capacities")
	})
	for _, node := range s.nodes {
		if left := s.onNode(node, remains); left != "" {
			s.fail("%s has kept\n%s", node, left)
		}
	}
	for _, node := range s.nodes {
		s.until(patience, "kubelet of "+node+" knows the driver no more", func() string {
			info, err := s.api.StorageV1().CSINodes().Get(s.ctx, node, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			for _, d := range info.Spec.Drivers {
				if d.Name == driver {
					return "it does"
				}
			}
			return ""
		})
	}
	classes, err := s.api.StorageV1().StorageClasses().List(s.ctx, metav1.ListOptions{})
	s.must(err, "list classes")
	for _, class := range classes.Items {
		if class.Provisioner == driver && !strings.HasPrefix(class.Name, "e2e-") {
			s.fail("class %s is left", class.Name)
		}
	}
}
