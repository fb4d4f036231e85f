package main

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func ext4Volume(s *scene) { fileSystem(s, ext4Class, "ext4") }
func xfsVolume(s *scene)  { fileSystem(s, xfsClass, "xfs") }

func fileSystem(s *scene, class, kind string) {
	s.claim("data", "512Mi", class)
	node := s.start("first", with("data"))
	have, options := s.mounted("first", "/data")
	expect(s, "the file system", have, kind)
	for _, want := range s.classes[class].MountOptions {
		if !strings.Contains(","+options+",", ","+want+",") {
			s.fail("it is mounted with %s, and the class says %s", options, want)
		}
	}
	s.fileSystemSize("first", "/data", "512Mi")
	sum := s.sh("first", "dd if=/dev/urandom of=/data/file bs=1M count=16 status=none && sync && sha256sum </data/file")
	s.stop("first")

	// The second is another user, whom the group lets in.
	expect(s, "the second pod's node", s.start("second", with("data"), as(1000, 2000)), node)
	expect(s, "what is read", s.sh("second", "sha256sum </data/file"), sum)
	expect(s, "the group of what is written", s.sh("second", "echo more >/data/mine && sync && stat -c %g /data/mine"), "2000")
	if homes := homes(s.bound("data")); len(homes) != 1 || homes[0] != node {
		s.fail("the volume is for nodes %v, and it is on %s", homes, node)
	}
}

func blockVolume(s *scene) {
	const size = "256Mi"
	s.claim("raw", size, ext4Class, block)
	s.start("first", device("raw"))
	bytes := bytesOf(size)
	expect(s, "the size", s.number("first", "blockdev --getsize64 /dev/raw"), bytes)
	expect(s, "what is there before", s.sh("first", "cmp -n 4194304 /dev/raw /dev/zero && echo zeros"), "zeros")

	offsets := "0 7 100 255"
	s.sh("first", "for mib in "+offsets+"; do yes $mib | dd of=/dev/raw bs=64k count=16 seek=${mib}M oflag=seek_bytes iflag=fullblock conv=notrunc,fsync status=none || exit; done")
	s.stop("first")

	s.start("second", device("raw"))
	wrong := s.sh("second", "for mib in "+offsets+"; do dd if=/dev/raw bs=64k count=16 skip=${mib}M iflag=skip_bytes,fullblock status=none >/tmp/have; yes $mib | head -c 1048576 | cmp - /tmp/have || echo $mib; done")
	expect(s, "what has changed", wrong, "")
}

func immediateVolume(s *scene) {
	s.claim("data", "128Mi", ext4Class+restores)
	homes := homes(s.bound("data"))
	if len(homes) != 1 {
		s.fail("it is for nodes %v", homes)
	}
	expect(s, "the pod's node", s.start("pod", with("data")), homes[0])
	s.sh("pod", "echo yes >/data/file && sync")
}

func sharedVolume(s *scene) {
	s.claim("data", "128Mi", ext4Class)
	node := s.start("first", with("data"))
	expect(s, "the second pod's node", s.start("second", with("data")), node)
	s.sh("first", "echo first >/data/file")
	expect(s, "what the second reads", s.sh("second", "cat /data/file && echo second >/data/file"), "first")
	s.stop("second")
	expect(s, "what the first reads", s.sh("first", "cat /data/file && echo still >/data/file && sync"), "second")
}

func volumeOfOnePod(s *scene) {
	s.claim("data", "128Mi", ext4Class, oncePod)
	s.start("first", with("data"))
	s.pod("second", with("data"))
	s.pending("second", "ReadWriteOncePod")
	s.stop("first")
	s.running("second")
	expect(s, "its access modes", s.bound("data").Spec.AccessModes[0], corev1.ReadWriteOncePod)
}
