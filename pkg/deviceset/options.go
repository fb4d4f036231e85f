package deviceset

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// Config is what the options of a device set say. It does not know whether the
// kernel, the disks or a set that exists already go along with it.
type Config struct {
	BaseSize      int64 // bytes
	BaseSizeGiven bool  // the size was asked for: a base that is smaller grows

	LoopDataSize     int64 // bytes
	LoopMetadataSize int64 // bytes; 0 is by rule
	Preallocate      bool  // the data file has all its blocks from the begin

	FS           string // "ext4" or "xfs"
	MkfsArgs     []string
	MountOptions []string

	DataDevice     string // an absolute path; empty where the pool is on files, or not ours to make
	MetadataDevice string // likewise; both or neither
	ThinPool       string // the dm name of a pool that somebody else made
	Force          bool   // a disk is taken whatever it holds

	BlockSize        dm.Sectors // 0 is by rule
	Discard          *bool      // nil is by rule
	SkipBlockZeroing bool
	ErrorIfNoSpace   *bool // nil is true

	MinFreeSpace    int     // percent of the data; 0 admits to the last block
	MinFreeMetadata int     // percent of the metadata
	OverProvision   float64 // sizes of all volumes by size of the data; 0 is unlimited

	XFSNoSpaceRetries *uint // nil leaves it to the kernel, which retries for ever

	LazyUnmount      bool
	DeferredRemoval  bool
	DeferredDeletion bool

	Prefix string // how the dm names begin

	label int64 // bytes; 0 is by rule. No option: tests have tiny pools
}

// ParseOptions reads options of the form key=value. Where one is given twice the
// last wins, but for those that say that they accumulate. Warnings are for people:
// nothing is wrong, but an option has no effect.
func ParseOptions(options []string) (c Config, warnings []string, err error) {
	c = defaultConfig()
	given := make(map[string]bool)
	for _, text := range options {
		name, err := c.set(text)
		if err != nil {
			return Config{}, nil, err
		}
		given[name] = true
	}
	c.BaseSizeGiven = given["dm.basesize"]
	if err := c.checkConflicts(given); err != nil {
		return Config{}, nil, err
	}
	return c, optionWarnings(given), nil
}

func defaultConfig() (c Config) {
	for _, o := range optionTable {
		if o.def == "" {
			continue
		}
		if err := o.parse(&c, o.def); err != nil {
			panic(fmt.Sprintf("default of option %s: %v", o.name, err)) // the table is wrong
		}
	}
	return c
}

// set takes in one option and returns its name in the table.
func (c *Config) set(text string) (string, error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", fmt.Errorf("option %q: want key=value: %w", text, ErrInvalid)
	}
	key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
	o, ok := findOption(key)
	if !ok {
		return "", fmt.Errorf("option %q: unknown%s: %w", key, suggestion(key), ErrInvalid)
	}
	if err := o.parse(c, value); errors.Is(err, errNotYet) {
		return "", fmt.Errorf("option %s: %w", key, err)
	} else if err != nil {
		return "", fmt.Errorf("option %s=%q: want %s: %w", key, value, o.value, err)
	}
	return o.name, nil
}

func findOption(key string) (option, bool) {
	for _, o := range optionTable {
		if o.name == key || slices.Contains(o.aliases, key) {
			return o, true
		}
	}
	return option{}, false
}

// exclusions are options that cannot be had together. An option that would be
// passed over in silence is one that somebody relies on.
var exclusions = []struct {
	option string
	others []string
	why    string
}{
	{
		"dm.thinpooldev",
		[]string{
			"dm.datadev", "dm.metadatadev", "dm.force", "dm.loopdatasize", "dm.loopmetadatasize", "dm.preallocate",
			"dm.blocksize", "dm.skip_block_zeroing", "dm.error_if_no_space",
		},
		"a pool that is there already stays as it was made",
	},
	{
		"dm.datadev",
		[]string{"dm.loopdatasize", "dm.loopmetadatasize", "dm.preallocate"},
		"a pool is made on disks or on files",
	},
}

func (c Config) checkConflicts(given map[string]bool) error {
	for _, x := range exclusions {
		for _, other := range x.others {
			if given[x.option] && given[other] {
				return fmt.Errorf("options %s and %s: %s: %w", x.option, other, x.why, ErrInvalid)
			}
		}
	}
	switch {
	case (c.DataDevice == "") != (c.MetadataDevice == ""):
		return fmt.Errorf("options dm.datadev and dm.metadatadev: want both or neither: %w", ErrInvalid)
	case c.DataDevice != "" && c.DataDevice == c.MetadataDevice:
		return fmt.Errorf("options dm.datadev and dm.metadatadev: both are %s: %w", c.DataDevice, ErrInvalid)
	case c.Preallocate && c.Discard != nil && *c.Discard:
		return fmt.Errorf("options dm.preallocate and dm.blkdiscard: a discard would give back what was allocated: "+
			"turn one of them off: %w", ErrInvalid)
	case c.DeferredDeletion && !c.DeferredRemoval:
		return fmt.Errorf("options dm.use_deferred_deletion and dm.use_deferred_removal: "+
			"deletion waits for removal: turn both off, or neither: %w", ErrInvalid)
	}
	return nil
}

// optionWarnings is one warning at most: configurations carry these options by
// the handful.
func optionWarnings(given map[string]bool) []string {
	var idle []string
	for _, o := range optionTable {
		if o.idle && given[o.name] {
			idle = append(idle, o.name)
		}
	}
	if idle == nil {
		return nil
	}
	return []string{"options without effect: " + strings.Join(idle, ", ")}
}
