package filesystem

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const mib = 1 << 20

// Superblocks by hand, so that all that Probe knows is tried without any tool.

// anExt returns an image of size bytes with an ext superblock. The last word on it
// is edit's, before the checksum.
func anExt(size int64, edit func(s []byte)) []byte {
	image := make([]byte, size)
	s := image[extOffset : extOffset+extSize]
	le := binary.LittleEndian
	le.PutUint16(s[extMagicAt:], extMagic)
	le.PutUint32(s[extBlocksLow:], uint32(size/4096))
	le.PutUint32(s[extLogBlockSize:], 2)
	le.PutUint32(s[extPerGroup:], 32768)
	le.PutUint32(s[extClusters:], 32768)
	le.PutUint32(s[extInodes:], 8192)
	le.PutUint16(s[extState:], extStateValid)
	le.PutUint32(s[extRevision:], 1)
	le.PutUint16(s[extInodeSize:], 256)
	le.PutUint32(s[extROCompat:], extROCompatChecksums)
	s[extChecksumType] = 1
	copy(s[extUUID:], "0123456789abcdef")
	copy(s[extLabel:], "name")
	if edit != nil {
		edit(s)
	}
	le.PutUint32(s[extChecksum:], ^crc32.Checksum(s[:extChecksum], castagnoli))
	return image
}

// anXFS is anExt for xfs.
func anXFS(size int64, edit func(s []byte)) []byte {
	image := make([]byte, size)
	s := image[:512]
	be := binary.BigEndian
	copy(s, xfsMagic)
	be.PutUint32(s[xfsBlockSize:], 4096)
	be.PutUint64(s[xfsBlocks:], uint64(size/4096))
	copy(s[xfsUUID:], "0123456789abcdef")
	be.PutUint64(s[xfsRootInode:], 128)
	be.PutUint32(s[xfsAGBlocks:], uint32(size/4096))
	be.PutUint32(s[xfsAGs:], 1)
	be.PutUint16(s[xfsVersion:], 0xb4a5)
	be.PutUint16(s[xfsSectorSize:], 512)
	be.PutUint16(s[xfsInodeSize:], 512)
	copy(s[xfsLabel:], "twelve bytes")
	s[xfsLogBlock], s[xfsLogSector] = 12, 9
	if edit != nil {
		edit(s)
	}
	binary.LittleEndian.PutUint32(s[xfsChecksum:], 0)
	binary.LittleEndian.PutUint32(s[xfsChecksum:], crc32.Checksum(s, castagnoli))
	return image
}

// aBtrfs is anExt for btrfs.
func aBtrfs(size int64, edit func(s []byte)) []byte {
	image := make([]byte, size)
	s := image[btrfsOffset : btrfsOffset+btrfsSize]
	copy(s[btrfsMagicAt:], btrfsMagic)
	copy(s[btrfsUUID:], "0123456789abcdef")
	copy(s[btrfsLabel:], "name")
	binary.LittleEndian.PutUint64(s[btrfsAddress:], btrfsOffset)
	binary.LittleEndian.PutUint64(s[btrfsTotalBytes:], uint64(size))
	if edit != nil {
		edit(s)
	}
	binary.LittleEndian.PutUint32(s, crc32.Checksum(s[btrfsChecksumOf:], castagnoli))
	return image
}

// both returns an image with the superblocks of two of the same size.
func both(a, b []byte) []byte {
	sum := make([]byte, len(a))
	for i := range a {
		sum[i] = a[i] | b[i]
	}
	return sum
}

// with returns a blank image of size bytes but for magic at offset.
func with(size, offset int64, magic string) []byte {
	image := make([]byte, size)
	copy(image[offset:], magic)
	return image
}

// Images by tools.

// imageFile makes a sparse file.
func imageFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// needTool ends a test that cannot do without a tool: tools/setup installs them
// all, other machines may lack some.
func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// tool runs a tool with what it is to read, and returns what it says.
func tool(t testing.TB, input io.Reader, name string, args ...string) string {
	t.Helper()
	needTool(t, name)
	cmd := exec.Command(name, args...)
	cmd.Stdin = input
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}
