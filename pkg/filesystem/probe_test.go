package filesystem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const uuidByHand = "30313233-3435-3637-3839-616263646566"

func probe(image []byte) (Info, error) { return Probe(bytes.NewReader(image), int64(len(image))) }

func TestProbe(t *testing.T) {
	state := func(state uint16) func([]byte) {
		return func(s []byte) { binary.LittleEndian.PutUint16(s[extState:], state) }
	}
	v4 := func(s []byte) { binary.BigEndian.PutUint16(s[xfsVersion:], 0xb4a4) }
	old := func(s []byte) { clear(s[extROCompat : extROCompat+4]); clear(s[extRevision : extRevision+4]) }
	ext := Info{Type: Ext4, UUID: uuidByHand, Label: "name", Size: 8 * mib}
	dirty := ext
	dirty.Dirty = true
	xfs := Info{Type: XFS, UUID: uuidByHand, Label: "twelve bytes", Size: 8 * mib}
	for name, test := range map[string]struct {
		image []byte
		want  Info
	}{
		"ext4":                        {anExt(8*mib, nil), ext},
		"ext2 of revision 0":          {anExt(8*mib, old), ext},
		"ext4 with an error":          {anExt(8*mib, state(extStateValid|extStateError)), dirty},
		"ext4 that was not unmounted": {anExt(8*mib, state(0)), dirty},
		"ext4, the device has more":   {append(anExt(8*mib, nil), make([]byte, mib+513)...), ext},
		"ext4 behind boot code":       {both(anExt(8*mib, nil), with(8*mib, 510, "\x55\xaa")), ext},
		"xfs":                         {anXFS(8*mib, nil), xfs},
		"xfs 4":                       {anXFS(8*mib, v4), xfs},
		"btrfs":                       {aBtrfs(8*mib, nil), Info{Type: Btrfs, UUID: uuidByHand, Label: "name", Size: 8 * mib}},
	} {
		t.Run(name, func(t *testing.T) {
			if info, err := probe(test.image); err != nil || info != test.want {
				t.Errorf("%+v, %v; want %+v", info, err, test.want)
			}
		})
	}
}

func TestProbeFindsNone(t *testing.T) {
	for name, test := range map[string]struct {
		image []byte
		want  error
		words string
	}{
		"nothing":                  {make([]byte, 8*mib), ErrBlank, ""},
		"a blank 4 KiB":            {make([]byte, 4096), ErrBlank, ""},
		"a blank sector":           {make([]byte, 512), ErrBlank, ""},
		"a blank byte":             {make([]byte, 1), ErrBlank, ""},
		"text":                     {bytes.Repeat([]byte("text"), mib), ErrUnknown, "unknown data"},
		"one byte":                 {with(1, 0, "x"), ErrUnknown, "unknown data"},
		"a byte at the end":        {with(8*mib, 8*mib-1, "x"), ErrUnknown, "unknown data"},
		"LVM2":                     {with(8*mib, 512, "LABELONE"), ErrUnknown, "LVM2 physical volume at byte 512"},
		"4 KiB of an ext4":         {anExt(8*mib, nil)[:4096], ErrDamaged, "2048 blocks of 4096 bytes on a device of 4096 bytes"},
		"512 bytes of an xfs":      {anXFS(8*mib, nil)[:512], ErrDamaged, "on a device of 512 bytes"},
		"an ext4 cut short":        {anExt(8*mib, nil)[:8*mib-4096], ErrDamaged, "2048 blocks"},
		"an xfs cut short":         {anXFS(8*mib, nil)[:8*mib-4096], ErrDamaged, "2048 blocks"},
		"an ext4 of a flipped bit": {flip(anExt(8*mib, nil), extOffset+extUUID), ErrDamaged, "ext4: checksum"},
		"an xfs of a flipped bit":  {flip(anXFS(8*mib, nil), xfsUUID), ErrDamaged, "xfs: checksum"},
		"a btrfs of a flipped bit": {flip(aBtrfs(8*mib, nil), btrfsOffset+btrfsUUID), ErrDamaged, "btrfs: checksum"},
		"half a mkfs.xfs":          {anXFS(8*mib, func(s []byte) { s[xfsInProgress] = 1 }), ErrDamaged, "interrupted"},
		"an external journal":      {anExt(8*mib, func(s []byte) { s[extIncompat] = extIncompatJournalDev }), ErrDamaged, "external journal"},
		"ext4 and xfs":             {both(anExt(8*mib, nil), anXFS(8*mib, nil)), ErrAmbiguous, "xfs, ext4"},
		"ext4 and btrfs":           {both(anExt(8*mib, nil), aBtrfs(8*mib, nil)), ErrAmbiguous, "ext4, btrfs"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := probe(test.image)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.words) || info != (Info{}) {
				t.Errorf("%+v, %v; want %v: ...%s", info, err, test.want, test.words)
			}
		})
	}
}

func flip(image []byte, at int) []byte {
	image[at] ^= 4
	return image
}

// A stale superblock that is no longer whole does not stand in the way.
func TestProbeBesideRuins(t *testing.T) {
	ruins := anExt(8*mib, nil)
	clear(ruins[extOffset+extUUID : extOffset+extSize])
	if info, err := probe(both(ruins, anXFS(8*mib, nil))); err != nil || info.Type != XFS {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestProbeOfNoGeometry(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	for name, image := range map[string][]byte{
		"block size":      anExt(mib, func(s []byte) { s[extLogBlockSize+3] = 0xff }),
		"no blocks":       anExt(mib, func(s []byte) { le.PutUint32(s[extBlocksLow:], 0) }),
		"2^63 blocks":     anExt(mib, func(s []byte) { s[extIncompat], s[extBlocksHigh+3] = extIncompat64Bit, 0x80 }),
		"no inodes":       anExt(mib, func(s []byte) { le.PutUint32(s[extInodes:], 0) }),
		"long groups":     anExt(mib, func(s []byte) { le.PutUint32(s[extPerGroup:], 32769) }),
		"odd inodes":      anExt(mib, func(s []byte) { le.PutUint16(s[extInodeSize:], 130) }),
		"no checksum":     anExt(mib, func(s []byte) { s[extChecksumType] = 9 }),
		"first block":     anExt(mib, func(s []byte) { le.PutUint32(s[extFirstData:], 2) }),
		"xfs 3":           anXFS(mib, func(s []byte) { be.PutUint16(s[xfsVersion:], 3) }),
		"no sectors":      anXFS(mib, func(s []byte) { be.PutUint16(s[xfsSectorSize:], 0) }),
		"large blocks":    anXFS(mib, func(s []byte) { s[xfsLogBlock] = 17 }),
		"small xfs inode": anXFS(mib, func(s []byte) { be.PutUint16(s[xfsInodeSize:], 128) }),
		"no groups":       anXFS(mib, func(s []byte) { be.PutUint32(s[xfsAGs:], 0) }),
		"many groups":     anXFS(mib, func(s []byte) { be.PutUint32(s[xfsAGs:], 2) }),
		"no root":         anXFS(mib, func(s []byte) { be.PutUint64(s[xfsRootInode:], 0) }),
		"other place":     aBtrfs(mib, func(s []byte) { le.PutUint64(s[btrfsAddress:], 64<<20) }),
	} {
		if info, err := probe(image); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func TestProbeReadsInFull(t *testing.T) {
	image := anXFS(8*mib, nil)
	if _, err := Probe(bytes.NewReader(image[:100]), 8*mib); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a device that ends early: %v", err)
	}
	if _, err := Probe(bytes.NewReader(nil), 0); err == nil || errors.Is(err, ErrBlank) {
		t.Errorf("a device without size: %v", err)
	}
}

func TestProbeDevice(t *testing.T) {
	for _, size := range []int64{8 * mib, 8*mib + 512, 8*mib + 513} {
		path := filepath.Join(t.TempDir(), "image")
		image := append(anExt(8*mib, nil), make([]byte, size-8*mib)...)
		if err := os.WriteFile(path, image, 0o400); err != nil {
			t.Fatal(err)
		}
		if info, err := ProbeDevice(path); err != nil || info.Type != Ext4 {
			t.Errorf("%d bytes: %+v, %v", size, info, err)
		}
		if traces, err := ScanDevice(path); err != nil || traces.String() != "ext4 file system at byte 1024" {
			t.Errorf("%d bytes: %s, %v", size, traces, err)
		}
	}
	for _, path := range []string{"/dev/null", t.TempDir(), "/nowhere"} {
		if _, err := ProbeDevice(path); err == nil || !strings.HasPrefix(err.Error(), "probe "+path+": ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// However a reader is asked, it has the bytes of the file.
func TestDirectFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	want := make([]byte, 20000)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, size, err := openDevice(path)
	if err != nil || size != 20000 {
		t.Fatal(size, err)
	}
	defer f.Close()
	for range 1000 {
		at, n := rand.Int64N(size+5000), rand.IntN(9000)
		got, expected := make([]byte, n), make([]byte, n)
		n, err := f.ReadAt(got, at)
		m, wantErr := bytes.NewReader(want).ReadAt(expected, at)
		if n != m || !bytes.Equal(got, expected) || len(got) > 0 && !errors.Is(err, wantErr) {
			t.Fatalf("%d bytes at %d: %d, %v; want %d, %v", len(got), at, n, err, m, wantErr)
		}
	}
}

func FuzzProbe(f *testing.F) {
	const size = headSize
	for _, image := range [][]byte{
		{}, {0}, anExt(size, nil), anXFS(size, nil), aBtrfs(size, nil), with(size, 510, "\x55\xaa"),
		both(anExt(size, nil), anXFS(size, nil)), with(size, size-8192, "\xfc\x4e\x2b\xa9"),
		anExt(size, func(s []byte) { clear(s[extROCompat : extROCompat+4]) }),
		anXFS(size, func(s []byte) { binary.BigEndian.PutUint16(s[xfsVersion:], 4) }),
	} {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		info, err := probe(image)
		traces, scanErr := Scan(bytes.NewReader(image), int64(len(image)))
		switch blank := zeros(image); {
		case len(image) == 0:
			if err == nil || scanErr == nil {
				t.Fatal("an answer about nothing")
			}
		case errors.Is(err, ErrBlank) != blank || traces.Blank() != blank || scanErr != nil:
			t.Fatalf("blank %t, but %v and %s, %v", blank, err, traces, scanErr)
		case err == nil && info.Type != Btrfs && (info.Size <= 0 || info.Size > int64(len(image))):
			t.Fatalf("%+v on %d bytes", info, len(image))
		}
	})
}
