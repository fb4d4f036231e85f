package deviceset

import (
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// The parsers of values return ErrInvalid where all there is to say is what was
// wanted: the table says that.

func boolOption(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, value string) error { return parseBool(field(c), value) }
}

func optionalBool(field func(*Config) **bool) func(*Config, string) error {
	return func(c *Config, value string) error {
		on := new(bool)
		*field(c) = on
		return parseBool(on, value)
	}
}

func parseBool(to *bool, value string) error {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return ErrInvalid
	}
	*to = on
	return nil
}

func sizeOption(field func(*Config) *int64) func(*Config, string) error {
	return func(c *Config, value string) error {
		bytes, err := ParseSize(value)
		if err != nil {
			return err
		}
		if bytes == 0 {
			return ErrInvalid
		}
		*field(c) = bytes
		return nil
	}
}

func percentOption(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, value string) error {
		digits, ok := strings.CutSuffix(value, "%")
		percent, err := strconv.ParseUint(digits, 10, 7)
		if !ok || err != nil || percent > 99 {
			return ErrInvalid
		}
		*field(c) = int(percent)
		return nil
	}
}

func logLevelOption(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, value string) error {
		level, err := strconv.Atoi(value)
		if err != nil || level < 2 || level > 7 {
			return ErrInvalid
		}
		*field(c) = level
		return nil
	}
}

// pathOption takes paths that are clean already: cleaning one could name another
// disk, since ".." behind a symbolic link is not where it looks.
func pathOption(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, value string) error {
		if !filepath.IsAbs(value) || filepath.Clean(value) != value || !printable(value) {
			return ErrInvalid
		}
		*field(c) = value
		return nil
	}
}

func parseThinPoolName(c *Config, value string) error {
	name := strings.TrimPrefix(value, "/dev/mapper/")
	switch {
	case name == "" || name == "." || name == ".." || len(name) > maxDMName:
		return ErrInvalid
	case strings.ContainsAny(name, "/ ") || !printable(name):
		return ErrInvalid
	}
	c.ThinPool = name
	return nil
}

// maxDMName is the longest name that fits the kernel's field with its NUL
// (include/uapi/linux/dm-ioctl.h: DM_NAME_LEN).
const maxDMName = 127

// Below 2 MiB of metadata a pool is full before it is of use; of what is beyond
// 16 GiB the kernel uses none.
const (
	minLoopMetadata = 2 << 20
	maxLoopMetadata = 16 << 30
)

func parseLoopMetadataSize(c *Config, value string) error {
	bytes, err := ParseSize(value)
	if err != nil {
		return err
	}
	if bytes != 0 && (bytes < minLoopMetadata || bytes > maxLoopMetadata) {
		return ErrInvalid
	}
	c.LoopMetadataSize = bytes
	return nil
}

func parseBlockSize(c *Config, value string) error {
	bytes, err := ParseSize(value)
	if err != nil {
		return err
	}
	if bytes%dm.MinBlockSize.Bytes() != 0 || bytes == 0 || bytes > dm.MaxBlockSize.Bytes() {
		return ErrInvalid
	}
	c.BlockSize = dm.SectorsIn(bytes)
	return nil
}

func parseOverProvision(c *Config, value string) error {
	ratio, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(ratio) || math.IsInf(ratio, 0) || math.Signbit(ratio) {
		return ErrInvalid
	}
	c.OverProvision = ratio
	return nil
}

// parseFS sets to, if value is among allowed.
func parseFS(to *string, value string, allowed ...string) error {
	if value == "btrfs" {
		return fmt.Errorf("before Linux 6.7 two copies of one btrfs cannot be mounted on one host, "+
			"and every snapshot is a copy: %w", ErrInvalid)
	}
	if !slices.Contains(allowed, value) {
		return ErrInvalid
	}
	*to = value
	return nil
}

func parseMkfsArgs(c *Config, value string) error {
	words, err := SplitWords(value)
	c.MkfsArgs = append(c.MkfsArgs, words...)
	return err
}

// parseMountOptions splits at every comma, even at one in the quotes of an SELinux
// context: put together again with commas, the kernel sees what was given.
func parseMountOptions(c *Config, value string) error {
	options := strings.Split(value, ",")
	for i, o := range options {
		options[i] = strings.TrimSpace(o)
		if options[i] == "" || strings.Contains(options[i], " ") || !printable(o) {
			return ErrInvalid
		}
	}
	c.MountOptions = append(c.MountOptions, options...)
	return nil
}

// parseRetries stays within the kernel's int (fs/xfs/xfs_sysfs.c:
// max_retries_store), whose -1 is for ever.
func parseRetries(c *Config, value string) error {
	if value == "unlimited" || value == "-1" {
		c.XFSNoSpaceRetries = nil
		return nil
	}
	retries, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return ErrInvalid
	}
	c.XFSNoSpaceRetries = new(uint)
	*c.XFSNoSpaceRetries = uint(retries)
	return nil
}

var prefixGrammar = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func parsePrefix(c *Config, value string) error {
	if !prefixGrammar.MatchString(value) {
		return ErrInvalid
	}
	c.Prefix = value
	return nil
}
