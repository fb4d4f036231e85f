package main

import "fmt"

func snapshotUnderWrite(s *scene) {
	s.claim("data", "256Mi", ext4Class)
	s.start("writer", with("data"), writing("data"))
	acked := s.ackedBeyond("writer", 10)
	s.snapshot("then", "data")
	s.taken("then")
	after := s.ackedBeyond("writer", acked)

	s.claim("copy", "512Mi", ext4Class+restores, fromSnapshot("then"))
	s.start("reader", with("copy"))
	records := s.records("reader", "/copy/log")
	if records < acked {
		s.fail("the copy has %d records, and %d were safe before the snapshot", records, acked)
	}
	if records > after+1 {
		s.fail("the copy has %d records, and %d were written", records, after)
	}
	s.fileSystemSize("reader", "/copy", "512Mi")
	s.sh("reader", "dd if=/dev/zero of=/copy/more bs=1M count=300 status=none && sync")
	s.noWriteFailed("writer")
}

// restoresFollow has a source on each of two nodes, so that the scheduler would be
// wrong about one of the pods, whichever node it prefers.
func restoresFollow(s *scene) {
	for i, node := range s.nodes[:2] {
		s.claim(fmt.Sprintf("data%d", i), "128Mi", ext4Class)
		s.pod(fmt.Sprintf("source%d", i), with(fmt.Sprintf("data%d", i)), on(node))
	}
	for i := range 2 {
		source := fmt.Sprintf("source%d", i)
		s.running(source)
		s.sh(source, fmt.Sprintf("echo %d >/data%d/file && sync", i, i))
		s.snapshot(fmt.Sprintf("snap%d", i), fmt.Sprintf("data%d", i))
	}
	for i := range 2 {
		s.taken(fmt.Sprintf("snap%d", i))
		s.claim(fmt.Sprintf("copy%d", i), "128Mi", ext4Class, fromSnapshot(fmt.Sprintf("snap%d", i)))
		s.pod(fmt.Sprintf("reader%d", i), with(fmt.Sprintf("copy%d", i)))
	}
	for i := range 2 {
		reader := fmt.Sprintf("reader%d", i)
		expect(s, "the node of "+reader, s.running(reader), s.nodes[i])
		expect(s, "what it reads", s.sh(reader, fmt.Sprintf("cat /copy%d/file", i)), fmt.Sprint(i))
	}
}

// restoredAndNew has the source on the node with less room, where the new volume would not go
// by itself.
func restoredAndNew(s *scene) {
	node := s.nodes[0]
	if s.roomiest(ext4Class) == node {
		node = s.nodes[1]
	}
	s.claim("data", "128Mi", ext4Class)
	s.start("source", with("data"), on(node))
	s.sh("source", "echo old >/data/file && sync")
	s.snapshot("then", "data")
	s.taken("then")
	s.claim("copy", "128Mi", ext4Class+restores, fromSnapshot("then"))
	s.claim("new", "128Mi", ext4Class)
	expect(s, "the pod's node", s.start("both", with("copy"), with("new")), node)
	expect(s, "what is in both", s.sh("both", "cp /copy/file /new/file && cat /new/file"), "old")
}

func clone(s *scene) {
	s.claim("data", "512Mi", xfsClass)
	node := s.start("source", with("data"))
	s.sh("source", "echo one >/data/file && sync")
	s.claim("copy", "512Mi", xfsClass, fromClaim("data"))
	expect(s, "the clone's node", s.start("clone", with("copy")), node)
	expect(s, "what the clone has", s.sh("clone", "cat /copy/file && echo two >/copy/file && sync"), "one")
	expect(s, "what the source has", s.sh("source", "cat /data/file && echo three >/data/file && sync"), "one")
	expect(s, "what the clone has", s.sh("clone", "cat /copy/file"), "two")
}
