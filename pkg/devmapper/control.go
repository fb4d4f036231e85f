package devmapper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ControlNode is the file through which the kernel takes requests.
const ControlNode = "/dev/mapper/control"

// controlMinor is its number (include/linux/miscdevice.h: MAPPER_CTRL_MINOR).
const controlMinor = 236

// Room for a reply, in bytes. The kernel clears and copies all of it at each
// request, so a request begins small and grows when it is told to.
const (
	replySize    = 4 << 10
	maxReplySize = 64 << 20 // about half a million devices
)

// Control is the Kernel of this machine. It needs CAP_SYS_ADMIN in the initial
// user namespace.
type Control struct {
	file *os.File

	mu   sync.Mutex
	room map[Command]int // what the last reply to a command needed
}

// Open opens the control node. It loads no module by itself: opening the node
// makes the kernel load dm_mod, and loading a table the target's module.
func Open() (*Control, error) {
	path, err := MiscPath("mapper/control", controlMinor)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ControlNode, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (as root, on a kernel with device-mapper: modprobe dm-thin-pool)", ControlNode, err)
	}
	return &Control{file: os.NewFile(uintptr(fd), ControlNode), room: map[Command]int{}}, nil
}

// Close closes the control node. Devices stay as they are.
func (c *Control) Close() error { return c.file.Close() }

// Do asks the kernel. A reply that does not fit is asked for again with more
// room. A request that a signal interrupted is repeated, except a message, of
// which nobody knows how far it got.
func (c *Control) Do(r Request) (Reply, error) {
	conn, err := c.file.SyscallConn()
	if err != nil {
		return Reply{}, err
	}
	var reply Reply
	var doErr error
	if err := conn.Control(func(fd uintptr) { reply, doErr = c.do(fd, r) }); err != nil {
		return Reply{}, fmt.Errorf("%w: %w", os.ErrClosed, err) // its only error
	}
	return reply, doErr
}

func (c *Control) do(fd uintptr, r Request) (Reply, error) {
	for size := c.roomFor(r.Command); ; {
		b, err := encode(r, size)
		if err != nil {
			return Reply{}, err
		}
		result, err := ioctl(fd, unix.DM_VERSION|uint(r.Command), unsafe.Pointer(&b[0]))
		if errors.Is(err, unix.EINTR) && r.Command != TargetMsg {
			continue
		}
		if err != nil {
			return Reply{}, err
		}
		if result > 0 && r.Command == TargetMsg {
			// A leftover of the kernel's own (drivers/md/dm-ioctl.c: target_message):
			// there is no table, and nobody got the message.
			return Reply{}, unix.ENXIO
		}
		reply, err := decode(r.Command, b)
		if err != nil || reply.Flags&BufferFull == 0 {
			return reply, err
		}
		if r.Command == TargetMsg || size >= maxReplySize {
			return Reply{}, fmt.Errorf("reply does not fit into %d bytes: %w", size, unix.ENOBUFS)
		}
		size *= 4
		c.needs(r.Command, size)
	}
}

func (c *Control) roomFor(cmd Command) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.room[cmd], replySize)
}

func (c *Control) needs(cmd Command, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room[cmd] = max(c.room[cmd], size)
}

// Discard tells the device behind f that length bytes from offset on are no
// longer needed; both are multiples of the sector size. A device that cannot
// discard answers EOPNOTSUPP (block/ioctl.c: blk_ioctl_discard).
func Discard(f *os.File, offset, length int64) error {
	span := [2]uint64{uint64(offset), uint64(length)}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ioErr error
	if err := conn.Control(func(fd uintptr) { _, ioErr = ioctl(fd, unix.BLKDISCARD, unsafe.Pointer(&span)) }); err != nil {
		return err
	}
	if ioErr != nil {
		return &os.PathError{Op: "discard", Path: f.Name(), Err: ioErr}
	}
	return nil
}

// ioctl is this project's only unsafe call. arg must hold what request says.
func ioctl(fd uintptr, request uint, arg unsafe.Pointer) (result uintptr, err error) {
	result, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return result, nil
}
