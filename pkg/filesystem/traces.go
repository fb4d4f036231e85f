package filesystem

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Traces are what others have left on a disk: reasons not to take it.
type Traces struct {
	Signatures []Signature
	OtherData  bool // there is no signature that is known, and yet not all is zeros
}

// A Signature says what the disk is or was used for.
type Signature struct {
	Name   string
	Offset int64 // in bytes, of what gives it away
}

// Blank reports that the regions that Scan looks at are zeros.
func (t Traces) Blank() bool { return len(t.Signatures) == 0 && !t.OtherData }

// String lists the traces for people.
func (t Traces) String() string {
	var found []string
	for _, s := range t.Signatures {
		found = append(found, fmt.Sprintf("%s at byte %d", s.Name, s.Offset))
	}
	if t.OtherData {
		found = append(found, "unknown data")
	}
	if len(found) == 0 {
		return "blank"
	}
	return strings.Join(found, ", ")
}

// Scan looks for traces of use in the first and the last MiB of a device of size
// bytes: partition tables, file systems, and members of RAIDs, volume groups and
// the like. Only traces that are Blank mean that nothing is lost.
func Scan(r io.ReaderAt, size int64) (Traces, error) {
	e, err := readEdges(r, size)
	if err != nil {
		return Traces{}, err
	}
	t := Traces{Signatures: e.signatures()}
	t.OtherData = len(t.Signatures) == 0 && !(zeros(e.head) && zeros(e.tail))
	return t, nil
}

// edgeSize is how much is looked at on each side. The farthest signature inside
// is that of zfs, of which a copy starts within the last 768 KiB.
const edgeSize = 1 << 20

// Edges are the two sides of a device. On a small one they overlap.
type edges struct {
	head, tail []byte
	size       int64
}

func readEdges(r io.ReaderAt, size int64) (edges, error) {
	if err := checkSize(size); err != nil {
		return edges{}, err
	}
	n := min(size, edgeSize)
	e := edges{head: make([]byte, n), tail: make([]byte, n), size: size}
	if err := readFull(r, e.head, 0); err != nil {
		return edges{}, err
	}
	return e, readFull(r, e.tail, size-n)
}

// has reports whether magic stands at offset, a place within one of the edges.
func (e edges) has(magic string, offset int64) bool {
	if tail := offset - (e.size - int64(len(e.tail))); tail >= 0 {
		return tail <= int64(len(e.tail)) && bytes.HasPrefix(e.tail[tail:], []byte(magic))
	}
	return offset >= 0 && offset <= int64(len(e.head)) && bytes.HasPrefix(e.head[offset:], []byte(magic))
}

func (e edges) signatures() []Signature {
	found := e.fileSystems()
	for _, m := range marks {
		if at := m.at(e.size); e.has(m.magic, at) {
			found = append(found, Signature{m.name, at})
		}
	}
	found = append(found, e.zfs()...)
	return append(found, e.bootSector(found)...)
}

// fileSystems tells those that Probe knows, sound or damaged.
func (e edges) fileSystems() (found []Signature) {
	head := make([]byte, headSize)
	copy(head, e.head)
	for _, f := range examine(head, e.size) {
		name := string(f.info.Type) + " file system"
		if f.err != nil {
			name = fmt.Sprintf("damaged file system (%v)", f.err)
		}
		found = append(found, Signature{name, f.offset})
	}
	return found
}

func zeros(b []byte) bool {
	var none [4096]byte
	for len(b) > 0 {
		n := min(len(b), len(none))
		if !bytes.Equal(b[:n], none[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
