package filesystem

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// What Probe answers where it finds no file system. Only ErrBlank means that
// nothing is lost by making one.
var (
	// ErrBlank: the first and the last MiB are zeros.
	ErrBlank = errors.New("blank")
	// ErrUnknown: something is there, and it is no file system that is known here.
	ErrUnknown = errors.New("no known file system")
	// ErrDamaged: a file system is there whose superblock cannot be true.
	ErrDamaged = errors.New("damaged file system")
	// ErrAmbiguous: there are superblocks of several file systems. All but one
	// are stale, and none says which.
	ErrAmbiguous = errors.New("several file systems")
)

// Info is what a superblock tells.
type Info struct {
	Type  Type // ext2 and ext3 are Ext4 too: its driver mounts them
	UUID  string
	Label string
	Size  int64 // of the file system, in bytes; the device may have more

	// Dirty file systems need Check before they are mounted. An error of which
	// only the journal knows yet is not seen here; mounting brings it out.
	Dirty bool
}

// An examiner looks for file systems of one type.
type examiner struct {
	offset int64 // of the superblock

	// examine reads it from the first headSize bytes of a device of size bytes.
	// Without the magic number it returns errAbsent; any other error tells what is
	// wrong with it.
	examine func(head []byte, size int64) (Info, error)
}

var errAbsent = errors.New("absent")

// examiners has one for each type that Probe knows.
var examiners = []examiner{
	{0, examineXFS},
	{extOffset, examineExt},
	{btrfsOffset, examineBtrfs},
}

// headSize ends behind the superblock that is the farthest from the start, that
// of btrfs.
const headSize = btrfsOffset + btrfsSize

// Probe tells which file system is on a device of size bytes. It reads from r
// and believes a superblock only if its geometry and, where there is one, its
// checksum are right.
//
// Errors: ErrBlank, ErrUnknown, ErrDamaged, ErrAmbiguous, and those of r, with
// io.ErrUnexpectedEOF where r has less than size.
func Probe(r io.ReaderAt, size int64) (Info, error) {
	head, err := readHead(r, size)
	if err != nil {
		return Info{}, err
	}
	return choose(r, size, examine(head, size))
}

// choose returns the one file system that is sound.
func choose(r io.ReaderAt, size int64, found []finding) (Info, error) {
	var sound []Info
	var damage error
	for _, f := range found {
		if f.err == nil {
			sound = append(sound, f.info)
		}
		damage = errors.Join(damage, f.err)
	}
	switch {
	case len(sound) == 1:
		return sound[0], nil
	case len(sound) > 1:
		return Info{}, fmt.Errorf("%w: %s", ErrAmbiguous, types(sound))
	case damage != nil:
		return Info{}, fmt.Errorf("%w: %w", ErrDamaged, damage)
	}
	return Info{}, describeRest(r, size)
}

// readHead reads the first headSize bytes of a device, and has zeros for what a
// smaller one lacks.
func readHead(r io.ReaderAt, size int64) ([]byte, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	head := make([]byte, headSize)
	return head, readFull(r, head[:min(size, headSize)], 0)
}

// checkSize refuses a device without bytes. It is not blank, but not there yet, as
// a loop device is that has no file.
func checkSize(size int64) error {
	if size <= 0 {
		return fmt.Errorf("a device of %d bytes has nothing to read", size)
	}
	return nil
}

// readFull fills b from r at offset.
func readFull(r io.ReaderAt, b []byte, offset int64) error {
	if _, err := io.ReadFull(io.NewSectionReader(r, offset, int64(len(b))), b); err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", len(b), offset, err)
	}
	return nil
}

// A finding is a superblock: what it tells, or what is wrong with it.
type finding struct {
	offset int64
	info   Info
	err    error
}

// examine returns the superblocks in the first headSize bytes of a device.
func examine(head []byte, size int64) (found []finding) {
	for _, e := range examiners {
		if info, err := e.examine(head, size); !errors.Is(err, errAbsent) {
			found = append(found, finding{e.offset, info, err})
		}
	}
	return found
}

// describeRest is the error for a device without a file system.
func describeRest(r io.ReaderAt, size int64) error {
	traces, err := Scan(r, size)
	switch {
	case err != nil:
		return err
	case traces.Blank():
		return ErrBlank
	}
	return fmt.Errorf("%w: %s", ErrUnknown, traces)
}

func types(infos []Info) string {
	var names []string
	for _, i := range infos {
		names = append(names, string(i.Type))
	}
	return strings.Join(names, ", ")
}

// fits checks that a file system of blocks of blockSize is within a device of
// size bytes: no kernel mounts one that is not.
func fits(blocks uint64, blockSize, size int64) error {
	if blocks == 0 || blocks > uint64(size/blockSize) {
		return fmt.Errorf("%d blocks of %d bytes on a device of %d bytes", blocks, blockSize, size)
	}
	return nil
}

// formatUUID prints a UUID as blkid does.
func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// cString returns what stands before the first NUL.
func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
