package devmapper

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The most bytes that fit into the kernel's fields, with a NUL behind them.
const (
	maxName = unix.DM_NAME_LEN - 1
	maxUUID = unix.DM_UUID_LEN - 1
	maxType = unix.DM_MAX_TYPE_NAME - 1
)

// Check refuses, with EINVAL, a request whose strings would reach the kernel cut
// short: too long for their fields, or with a NUL byte in them. Every Kernel
// refuses such a request.
func (r Request) Check() error {
	texts := []text{
		{"name", r.Name, maxName}, {"uuid", r.UUID, maxUUID},
		{"new name", r.NewName, maxUUID}, {"message", r.Message, maxText},
	}
	for _, l := range r.Table {
		texts = append(texts, text{"target type", l.Type, maxType}, text{"target parameters", l.Params, maxText})
	}
	for _, t := range texts {
		if err := t.check(); err != nil {
			return err
		}
	}
	return nil
}

// maxText bounds what the kernel does not, so that a request stays far below the
// 1 GiB that it takes.
const maxText = 1 << 20

type text struct {
	what, value string
	most        int
}

func (t text) check() error {
	if len(t.value) > t.most {
		return fmt.Errorf("%s %.40q has %d bytes, at most %d fit: %w", t.what, t.value, len(t.value), t.most, unix.EINVAL)
	}
	if strings.Contains(t.value, "\x00") {
		return fmt.Errorf("%s %q holds a NUL byte: %w", t.what, t.value, unix.EINVAL)
	}
	return nil
}
