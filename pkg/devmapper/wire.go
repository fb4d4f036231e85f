package devmapper

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// The layout of struct dm_ioctl, which opens every request and every reply, and
// of what follows it (include/uapi/linux/dm-ioctl.h).
const (
	headerSize = unix.SizeofDmIoctl
	specSize   = unix.SizeofDmTargetSpec

	offDataSize    = 12
	offDataStart   = 16
	offTargetCount = 20
	offOpenCount   = 24
	offFlags       = 28
	offEventNr     = 32
	offDev         = 40
	offName        = 48
	offUUID        = 176

	hasUUID = unix.DM_NAME_LIST_FLAG_HAS_UUID
)

var native = binary.NativeEndian

// encode lays r out as the kernel reads it, in a buffer of at least size bytes
// so that the reply finds room too.
func encode(r Request, size int) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	payload := encodePayload(r)
	b := make([]byte, max(size, headerSize+len(payload)))
	native.PutUint32(b, 4) // the interface's major version; minor 0 is understood by every kernel
	native.PutUint32(b[offDataSize:], uint32(len(b)))
	native.PutUint32(b[offDataStart:], headerSize)
	native.PutUint32(b[offTargetCount:], uint32(len(r.Table)))
	native.PutUint32(b[offFlags:], uint32(r.Flags))
	native.PutUint32(b[offEventNr:], r.EventNr)
	copy(b[offName:], r.Name)
	copy(b[offUUID:], r.UUID)
	copy(b[headerSize:], payload)
	return b, nil
}

func encodePayload(r Request) []byte {
	switch r.Command {
	case TableLoad:
		return encodeTable(r.Table)
	case TargetMsg:
		b := native.AppendUint64(nil, uint64(r.Sector))
		return append(append(b, r.Message...), 0)
	case DevRename:
		return append([]byte(r.NewName), 0)
	}
	return nil
}

// encodeTable chains the lines: in a load each one's next counts from its own
// beginning.
func encodeTable(lines []Line) (b []byte) {
	for _, l := range lines {
		spec := make([]byte, align8(specSize+len(l.Params)+1))
		native.PutUint64(spec, uint64(l.Start))
		native.PutUint64(spec[8:], uint64(l.Length))
		native.PutUint32(spec[20:], uint32(len(spec)))
		copy(spec[24:], l.Type)
		copy(spec[specSize:], l.Params)
		b = append(b, spec...)
	}
	return b
}

func align8(n int) int { return (n + 7) &^ 7 }

// decode reads what the kernel wrote over a request of the given command. A
// reply that does not hold together is an error, never a panic and never half
// an answer.
func decode(c Command, b []byte) (Reply, error) {
	if len(b) < headerSize {
		return Reply{}, fmt.Errorf("reply of %d bytes is shorter than its header", len(b))
	}
	reply := Reply{
		Version: TargetVersion{
			Major: native.Uint32(b), Minor: native.Uint32(b[4:]), Patch: native.Uint32(b[8:]),
		},
		Flags:     Flags(native.Uint32(b[offFlags:])),
		OpenCount: int(int32(native.Uint32(b[offOpenCount:]))),
		EventNr:   native.Uint32(b[offEventNr:]),
		Dev:       DevNo(native.Uint64(b[offDev:])),
		Name:      cString(b[offName : offName+unix.DM_NAME_LEN]),
		UUID:      cString(b[offUUID : offUUID+unix.DM_UUID_LEN]),
	}
	if reply.Flags&BufferFull != 0 {
		return reply, nil // the payload is missing; the header is whole
	}
	p := payloadOf(b)
	switch c {
	case ListDevices:
		reply.Devices = p.devices(reply.Flags&UUIDFlag != 0)
	case TableDeps:
		reply.Deps = p.deps()
	case TableStatus:
		reply.Lines = p.lines(native.Uint32(b[offTargetCount:]))
	case ListVersions, GetTargetVersion:
		reply.Targets = p.versions()
	case TargetMsg:
		if reply.Flags&DataOut != 0 {
			reply.Message = p.text(0)
		}
	}
	if p.err != nil {
		return Reply{}, fmt.Errorf("reply to %s: %w", c, p.err)
	}
	return reply, nil
}

// A payload is what follows the header of a reply. The first read beyond its
// end sets err, and all reads after that answer zero. Replies that have none
// need not say so: the kernel counts their size to the end of the header's
// strings, before the end of the struct (drivers/md/dm-ioctl.c: ctl_ioctl).
type payload struct {
	b   []byte
	err error
}

func payloadOf(b []byte) payload {
	start, size := native.Uint32(b[offDataStart:]), native.Uint32(b[offDataSize:])
	if start < size && uint64(size) <= uint64(len(b)) {
		return payload{b: b[start:size]}
	}
	return payload{}
}

func (p *payload) bytes(at, n int) []byte {
	if p.err != nil {
		return nil
	}
	if at < 0 || n < 0 || at > len(p.b)-n {
		p.err = fmt.Errorf("bytes %d to %d lie outside its payload of %d", at, at+n, len(p.b))
		return nil
	}
	return p.b[at : at+n]
}

func (p *payload) u32(at int) uint32 {
	if b := p.bytes(at, 4); b != nil {
		return native.Uint32(b)
	}
	return 0
}

func (p *payload) u64(at int) uint64 {
	if b := p.bytes(at, 8); b != nil {
		return native.Uint64(b)
	}
	return 0
}

// text reads a NUL-terminated string.
func (p *payload) text(at int) string {
	rest := p.bytes(at, max(len(p.b)-at, 0))
	end := bytes.IndexByte(rest, 0)
	if p.err == nil && end < 0 {
		p.err = fmt.Errorf("string at byte %d has no end", at)
	}
	if p.err != nil {
		return ""
	}
	return string(rest[:end])
}

// next moves on by a chain's next field, which must lead forward.
func (p *payload) next(at, from int, next uint32) int {
	to := from + int(next)
	if p.err == nil && (to <= at || to > len(p.b)) {
		p.err = fmt.Errorf("entry at byte %d is followed by byte %d of %d", at, to, len(p.b))
	}
	return to
}

// lines reads count lines of a status; next counts from the first of them.
func (p *payload) lines(count uint32) (lines []Line) {
	for at := 0; count > 0 && p.err == nil; count-- {
		lines = append(lines, Line{
			Start:  Sectors(p.u64(at)),
			Length: Sectors(p.u64(at + 8)),
			Type:   cString(p.bytes(at+24, unix.DM_MAX_TYPE_NAME)),
			Params: p.text(at + specSize),
		})
		if count > 1 {
			at = p.next(at, 0, p.u32(at+20))
		}
	}
	return lines
}

// deps reads a list that a device without a table does not have at all.
func (p *payload) deps() (devs []DevNo) {
	if len(p.b) == 0 {
		return nil
	}
	count := p.u32(0)
	for i := 0; i < int(count) && p.err == nil; i++ {
		devs = append(devs, DevNo(p.u64(8+8*i)))
	}
	return devs
}

// devices reads a chain of names. Behind each name, at the next multiple of
// eight bytes, stand the event number and what is to come, and then, on kernels
// of interface 4.45 and newer, the UUID where it was asked for (drivers/md/dm-ioctl.c:
// list_devices).
func (p *payload) devices(withUUID bool) (devs []Listed) {
	if len(p.b) == 0 || p.u64(0) == 0 {
		return nil // an empty list is one entry of device number 0
	}
	for at := 0; p.err == nil; {
		d := Listed{Dev: DevNo(p.u64(at)), Name: p.text(at + 12)}
		tail := align8(at + 12 + len(d.Name) + 1)
		d.EventNr = p.u32(tail)
		if withUUID && p.u32(tail+4)&hasUUID != 0 {
			d.UUID = p.text(tail + 8)
		}
		devs = append(devs, d)
		next := p.u32(at + 8)
		if next == 0 {
			break
		}
		at = p.next(at, at, next)
	}
	return devs
}

func (p *payload) versions() (targets []TargetVersion) {
	for at := 0; p.err == nil; {
		targets = append(targets, TargetVersion{
			Name:  p.text(at + 16),
			Major: p.u32(at + 4), Minor: p.u32(at + 8), Patch: p.u32(at + 12),
		})
		next := p.u32(at)
		if next == 0 {
			break
		}
		at = p.next(at, at, next)
	}
	return targets
}

// cString reads a string that a NUL or the end of its field ends.
func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
