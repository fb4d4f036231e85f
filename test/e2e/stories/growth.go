package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// growth is of three volumes at once, in a pod that goes on.
func growth(s *scene) {
	s.claim("small", "128Mi", ext4Class)
	s.claim("large", "512Mi", xfsClass)
	s.claim("raw", "128Mi", ext4Class, block)
	s.start("pod", with("small"), with("large"), device("raw"))
	s.sh("pod", "echo kept | tee /small/file /large/file >/dev/null && echo kept | dd of=/dev/raw conv=notrunc,fsync status=none && sync")

	s.resize("small", "256Mi")
	s.resize("large", "1Gi")
	s.resize("raw", "256Mi")
	s.resized("small", "256Mi")
	s.resized("large", "1Gi")
	s.resized("raw", "256Mi")

	s.fileSystemSize("pod", "/small", "256Mi")
	s.fileSystemSize("pod", "/large", "1Gi")
	expect(s, "the device's size", s.number("pod", "blockdev --getsize64 /dev/raw"), bytesOf("256Mi"))
	expect(s, "what is there", s.sh("pod", "cat /small/file /large/file && head -c 4 /dev/raw"), "kept\nkept\nkept")
}

func growthWithSnapshot(s *scene) {
	s.claim("data", "128Mi", ext4Class)
	s.start("pod", with("data"), writing("data"))
	acked := s.acked("pod")
	s.snapshot("then", "data")
	s.taken("then")
	s.resize("data", "384Mi")
	s.resized("data", "384Mi")
	s.fileSystemSize("pod", "/data", "384Mi")
	s.sh("pod", "dd if=/dev/zero of=/data/more bs=1M count=200 status=none && sync")

	// The snapshot is as large as its source was.
	s.claim("copy", "128Mi", ext4Class+restores, fromSnapshot("then"))
	s.start("reader", with("copy"))
	s.fileSystemSize("reader", "/copy", "128Mi")
	if records := s.records("reader", "/copy/log"); records < acked {
		s.fail("the copy has %d records, and %d were safe", records, acked)
	}
	s.noWriteFailed("pod")
}

func expansionTakenBack(s *scene) {
	s.claim("data", "128Mi", ext4Class)
	s.start("pod", with("data"))
	s.resize("data", "1Pi")
	s.told("PersistentVolumeClaim", "data", "pool")
	s.until(patience, "the claim knows that it cannot be", func() string {
		claim, err := s.getClaim("data")
		if err != nil {
			return err.Error()
		}
		if status := claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage]; status != corev1.PersistentVolumeClaimControllerResizeInfeasible {
			return fmt.Sprintf("it is %q", status)
		}
		return ""
	})
	s.resize("data", "256Mi")
	s.resized("data", "256Mi")
	s.fileSystemSize("pod", "/data", "256Mi")
}
