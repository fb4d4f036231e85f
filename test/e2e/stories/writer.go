package main

import (
	"fmt"
	"strconv"
	"strings"
)

// writing appends numbered records to /CLAIM/log, each of them synced before its number
// is acknowledged in /tmp/acked, and goes on where an earlier one ended. What fails is told in
// /tmp/errors.
func writing(claim string) podOption {
	return doing(strings.ReplaceAll(`
		log=/CLAIM/log
		i=0
		[ -e $log ] && i=$(wc -l <$log)
		while :; do
			i=$((i + 1))
			if echo $i >>$log && sync $log; then
				echo $i >/tmp/new && mv /tmp/new /tmp/acked
			else
				echo "record $i" >>/tmp/errors
			fi
			sleep 0.2
		done`, "CLAIM", claim))
}

// acked returns how many records a writer knows to be safe, once there are some.
func (s *scene) acked(writer string) int {
	return s.ackedBeyond(writer, 0)
}

// ackedBeyond waits until a writer has got further.
func (s *scene) ackedBeyond(writer string, before int) (n int) {
	s.until(patience, writer+" writes", func() string {
		said, err := s.execInPod(s.ctx, s.ns, writer, "main", "sh", "-c", "cat /tmp/acked; cat /tmp/errors >&2 2>/dev/null; true")
		if err != nil {
			return err.Error()
		}
		n, err = strconv.Atoi(strings.TrimSpace(said))
		if err != nil || n <= before {
			return fmt.Sprintf("record %q is written", strings.TrimSpace(said))
		}
		return ""
	})
	return n
}

// noWriteFailed sees that none did, and that the writer still writes.
func (s *scene) noWriteFailed(writer string) {
	s.ackedBeyond(writer, s.acked(writer))
	if failed := s.sh(writer, "cat /tmp/errors 2>/dev/null; true"); failed != "" {
		s.fail("writes failed: %s", failed)
	}
}

// records returns how many records there are in a log, in order and without a gap.
func (s *scene) records(pod, log string) int {
	n, err := consecutive(s.sh(pod, "cat "+log))
	s.must(err, "%s in pod %s", log, pod)
	return n
}

// consecutive returns how many lines a text has if they are 1, 2, 3 and so on.
func consecutive(text string) (n int, err error) {
	for line := range strings.Lines(text) {
		n++
		if strings.TrimSpace(line) != strconv.Itoa(n) {
			return n, fmt.Errorf("line %d is %q", n, line)
		}
	}
	return n, nil
}
