package main

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// quantity writes a size for a claim.
func quantity(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

func fullNode(s *scene) {
	full := s.roomiest(loopClass)
	all := s.room(loopClass)[full]
	s.claim("everything", quantity(all), loopClass, block)
	s.start("hog", device("everything"), on(full))
	s.until(time.Minute, "the scheduler knows that "+full+" is full", func() string {
		if room := s.room(loopClass); room[full] > all/4 || len(room) < len(s.nodes) {
			return fmt.Sprint(room)
		}
		return ""
	})
	s.claim("some", quantity(all/2), loopClass)
	if node := s.start("pod", with("some")); node == full {
		s.fail("the pod is on %s, which is full", full)
	}
}

func tooLarge(s *scene) {
	s.claim("data", "100Ti", ext4Class)
	s.pod("pod", with("data"))
	s.pending("pod", "did not have enough free storage")
}

func snapshotOnFullPool(s *scene) {
	node := s.roomiest(loopClass)
	all := s.room(loopClass)[node]
	s.claim("everything", quantity(all), loopClass, block)
	s.start("hog", device("everything"), on(node))
	s.sh("hog", fmt.Sprintf("dd if=/dev/zero of=/dev/everything bs=4M count=%d oflag=direct conv=fsync status=none", all>>22))

	s.snapshot("refused", "everything")
	s.until(patience, "the snapshot is refused", func() string {
		why, err := s.refusal("refused")
		switch {
		case err != nil:
			return err.Error()
		case !strings.Contains(why, "the pool has no room"):
			return fmt.Sprintf("it says %q", why)
		}
		return ""
	})
	s.removeSnapshot("refused")
	s.sh("hog", "head -c 4096 /dev/everything | cmp -n 4096 - /dev/zero")
}
