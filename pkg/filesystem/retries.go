package filesystem

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// limitRetries sets how often the mounted xfs on device tries again to write
// metadata (Documentation/admin-guide/xfs.rst, "Error handling"). A thin pool
// without space answers ENOSPC, or EIO once it has given up waiting for more.
func limitRetries(device string, retries uint) error {
	number, err := numberOf(device)
	if err != nil {
		return err
	}
	name, err := number.kernelName()
	if err != nil {
		return err
	}
	for _, class := range []string{"ENOSPC", "EIO"} {
		knob := filepath.Join("/sys/fs/xfs", name, "error/metadata", class, "max_retries")
		if err := turn(knob, retries); err != nil {
			return fmt.Errorf("limit retries of xfs: %w", err)
		}
	}
	return nil
}

// turn writes value to a file of sysfs, which is never created.
func turn(knob string, value uint) error {
	f, err := os.OpenFile(knob, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(strconv.FormatUint(uint64(value), 10))
	return err
}
