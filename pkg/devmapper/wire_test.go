package devmapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// at is what stands where in a message to or from the kernel. The offsets are
// those of include/uapi/linux/dm-ioctl.h, written out: the code under test has
// its own.
type at map[int]any

func (fields at) bytes(size int) []byte {
	b := make([]byte, size)
	for offset, value := range fields {
		switch v := value.(type) {
		case uint32:
			binary.NativeEndian.PutUint32(b[offset:], v)
		case uint64:
			binary.NativeEndian.PutUint64(b[offset:], v)
		case string:
			copy(b[offset:], v)
		}
	}
	return b
}

func TestEncode(t *testing.T) {
	for _, test := range []struct {
		name    string
		request Request
		size    int
		want    at
	}{
		{"version", Request{Command: Version}, 312, at{}},
		{"create", Request{Command: DevCreate, Name: "n", UUID: "u"}, 312, at{48: "n", 176: "u"}},
		{
			"longest names", Request{Command: DevCreate, Name: strings.Repeat("n", 127), UUID: strings.Repeat("u", 128)},
			312, at{48: strings.Repeat("n", 127), 176: strings.Repeat("u", 128)},
		},
		{
			"suspend", Request{Command: DevSuspend, Name: "n", Flags: Suspend | SkipLockFS | NoFlush},
			312, at{28: uint32(1<<1 | 1<<10 | 1<<11), 48: "n"},
		},
		{
			"resume tells udev", Request{Command: DevSuspend, Name: "n", EventNr: udevFlags},
			312, at{32: uint32(0x4e0000), 48: "n"},
		},
		{
			"load", Request{Command: TableLoad, Name: "n", Table: []Line{
				{0, 8, "zero", ""}, {8, 16, "linear", "7:0 1234567890"},
			}},
			312 + 48 + 56, at{
				20: uint32(2), 48: "n",
				320: uint64(8), 332: uint32(48), 336: "zero",
				360: uint64(8), 368: uint64(16), 380: uint32(56), 384: "linear", 400: "7:0 1234567890",
			},
		},
		{
			"message", Request{Command: TargetMsg, UUID: "u", Sector: 9, Message: "create_thin 7"},
			312 + 8 + 14, at{176: "u", 312: uint64(9), 320: "create_thin 7"},
		},
		{"rename", Request{Command: DevRename, Name: "n", NewName: "new"}, 312 + 4, at{48: "n", 312: "new"}},
		{"wait", Request{Command: DevWait, Name: "n", EventNr: 5}, 312, at{32: uint32(5), 48: "n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			have, err := encode(test.request, 0)
			if err != nil {
				t.Fatal(err)
			}
			test.want[0], test.want[12], test.want[16] = uint32(4), uint32(test.size), uint32(312)
			if want := test.want.bytes(test.size); !bytes.Equal(have, want) {
				t.Errorf("have\n%x\nwant\n%x", have, want)
			}
		})
	}
}

func TestEncodeLeavesRoomForTheReply(t *testing.T) {
	b, err := encode(Request{Command: ListDevices}, 5000)
	if err != nil || len(b) != 5000 || binary.NativeEndian.Uint32(b[12:]) != 5000 {
		t.Errorf("have %d bytes, error %v", len(b), err)
	}
}

func TestCheck(t *testing.T) {
	for _, r := range []Request{
		{Name: strings.Repeat("n", 128)}, {UUID: strings.Repeat("u", 129)}, {NewName: strings.Repeat("n", 129)},
		{Name: "a\x00b"}, {UUID: "a\x00b"}, {Message: "a\x00b"}, {Message: strings.Repeat("m", 1<<20+1)},
		{Table: []Line{{Type: "sixteen-letters!"}}}, {Table: []Line{{Type: "zero", Params: "a\x00b"}}},
	} {
		if _, err := encode(r, 0); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%.60q: error is %v", r, err)
		}
	}
}

func TestDecode(t *testing.T) {
	header := at{0: uint32(4), 4: uint32(47), 16: uint32(312)}
	for _, test := range []struct {
		name    string
		command Command
		reply   at
		size    int
		want    Reply
	}{
		{
			"info", DevStatus,
			at{20: uint32(1), 24: uint32(3), 28: uint32(1<<5 | 1<<1), 32: uint32(9), 40: uint64(0xfd00 | 7), 48: "name", 176: "uuid"},
			305, Reply{OpenCount: 3, Flags: ActivePresent | Suspend, EventNr: 9, Dev: MakeDevNo(253, 7), Name: "name", UUID: "uuid"},
		},
		{
			"minor of more than eight bits", DevStatus, at{40: uint64(0x12<<20 | 0xfd<<8 | 0x34)},
			305, Reply{Dev: MakeDevNo(253, 0x1234)},
		},
		{
			"status lines count next from the first", TableStatus,
			at{
				20:  uint32(3),
				320: uint64(8), 332: uint32(48), 336: "zero",
				360: uint64(8), 368: uint64(16), 380: uint32(104), 384: "thin", 400: "128 255",
				416: uint64(24), 424: uint64(8), 440: "error",
			},
			464, Reply{Lines: []Line{{0, 8, "zero", ""}, {8, 16, "thin", "128 255"}, {24, 8, "error", ""}}},
		},
		{
			"list counts next from each", ListDevices,
			at{
				28:  uint32(1 << 14),
				312: uint64(0xfd00), 320: uint32(40), 324: "abc", 328: uint32(5), 332: uint32(1), 336: "uuid-1",
				352: uint64(0xfd01), 364: "longer name", 376: uint32(6), 380: uint32(2),
			},
			392, Reply{Flags: UUIDFlag, Devices: []Listed{
				{"abc", "uuid-1", MakeDevNo(253, 0), 5}, {"longer name", "", MakeDevNo(253, 1), 6},
			}},
		},
		{"empty list", ListDevices, at{}, 328, Reply{}},
		{
			"deps", TableDeps, at{312: uint32(2), 320: uint64(0x700), 328: uint64(0x701)},
			336, Reply{Deps: []DevNo{MakeDevNo(7, 0), MakeDevNo(7, 1)}},
		},
		{
			"versions", ListVersions,
			at{312: uint32(32), 316: uint32(1), 320: uint32(22), 324: uint32(3), 328: "thin-pool", 348: uint32(1), 352: uint32(4), 360: "linear"},
			368, Reply{Targets: []TargetVersion{{"thin-pool", 1, 22, 3}, {"linear", 1, 4, 0}}},
		},
		{"message with an answer", TargetMsg, at{28: uint32(1 << 16), 312: "text"}, 320, Reply{Flags: DataOut, Message: "text"}},
		{"message without", TargetMsg, at{312: "junk"}, 320, Reply{}},
		{"reply that did not fit", TableStatus, at{20: uint32(9), 28: uint32(1 << 8)}, 312, Reply{Flags: BufferFull}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for offset, value := range header {
				test.reply[offset] = value
			}
			test.reply[12] = uint32(test.size)
			have, err := decode(test.command, test.reply.bytes(512))
			if err != nil {
				t.Fatal(err)
			}
			test.want.Version = TargetVersion{Major: 4, Minor: 47}
			if !reflect.DeepEqual(have, test.want) {
				t.Errorf("have\n%+v\nwant\n%+v", have, test.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		command Command
		reply   at
		size    int
	}{
		{"fewer bytes than the header", DevStatus, at{}, 100},
		{"more lines than the payload", TableStatus, at{20: uint32(1000), 332: uint32(48)}, 400},
		{"lines that lead backwards", TableStatus, at{20: uint32(3), 332: uint32(48), 380: uint32(0)}, 480},
		{"a line that leads outside", TableStatus, at{20: uint32(2), 332: uint32(4000)}, 480},
		{"a string without end", ListDevices, at{312: uint64(1), 324: strings.Repeat("x", 76)}, 400},
		{"more deps than the payload", TableDeps, at{312: uint32(1 << 30)}, 400},
		{"a list that leads outside", ListDevices, at{312: uint64(1), 320: uint32(1 << 31), 324: "n"}, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.size >= 312 {
				test.reply[12], test.reply[16] = uint32(test.size), uint32(312)
			}
			if have, err := decode(test.command, test.reply.bytes(test.size)); err == nil {
				t.Errorf("have %+v", have)
			}
		})
	}
}

// FuzzDecode looks for replies that make decode panic, hang or answer with more
// than they hold.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(TableStatus), at{20: uint32(1), 312: uint64(0), 320: uint64(8), 336: "zero"}.bytes(360))
	f.Add(uint8(ListDevices), at{28: uint32(1 << 14), 312: uint64(1), 324: "name", 332: uint32(1)}.bytes(360))
	f.Add(uint8(TableDeps), at{312: uint32(1)}.bytes(328))
	f.Add(uint8(ListVersions), at{328: "linear"}.bytes(360))
	f.Fuzz(func(t *testing.T, command uint8, b []byte) {
		if len(b) >= 312 { // the parts that Control sets, and the kernel keeps
			binary.NativeEndian.PutUint32(b[12:], uint32(len(b)))
			binary.NativeEndian.PutUint32(b[16:], 312)
		}
		reply, err := decode(Command(command), b)
		if err != nil {
			return
		}
		if n := len(fmt.Sprint(reply.Lines, reply.Devices, reply.Targets, reply.Deps)); n > 200*len(b)+200 {
			t.Errorf("%d bytes of reply became %d", len(b), n)
		}
	})
}
