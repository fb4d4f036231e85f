package deviceset

import (
	"errors"
	"fmt"
)

// An option is one row of the table from which options are parsed and
// docs/options.md is made.
type option struct {
	name    string
	aliases []string
	value   string // what may be given, as the document and an error put it
	def     string // the default, as one would give it; empty if a rule says it
	rule    string // what holds if the option is not given, where def is empty
	does    string
	parse   func(c *Config, value string) error
	idle    bool // has no effect
}

var optionTable = []option{
	{
		name: "dm.datadev", value: "an absolute path without . and ..", rule: "none",
		does: "The disk that holds what volumes hold. A pool is made on it. " +
			"Goes with `dm.metadatadev`: both or neither.",
		parse: pathOption(func(c *Config) *string { return &c.DataDevice }),
	},
	{
		name: "dm.metadatadev", value: "an absolute path without . and ..", rule: "none",
		does:  "The disk that keeps account of the data. It should be as fast and as safe as you can afford.",
		parse: pathOption(func(c *Config) *string { return &c.MetadataDevice }),
	},
	{
		name: "dm.force", value: "true or false", def: "false",
		does: "Makes a pool on disks that carry a signature, such as that of a file system or of a partition table. " +
			"**Everything on both disks is lost.** A pool of this driver, whoever has it, is refused, " +
			"with or without it.",
		parse: boolOption(func(c *Config) *bool { return &c.Force }),
	},
	{
		name: "dm.thinpooldev", value: "a dm name, or its path in /dev/mapper", rule: "none",
		does: "A pool that somebody else made, and that is new or was ours before. " +
			"It is never reloaded, grown or removed. Of an LVM pool name the one that ends in `-tpool`.",
		parse: parseThinPoolName,
	},
	{
		name: "dm.loopdatasize", value: "a size above 0, such as 100G", def: "100G",
		does: "How large the data file is, without disks. It is sparse, unless `dm.preallocate` is given. " +
			"An older and smaller file grows; none shrinks.",
		parse: sizeOption(func(c *Config) *int64 { return &c.LoopDataSize }),
	},
	{
		name: "dm.loopmetadatasize", value: "a size from 2M to 16G, or 0", rule: "1 % of the data, at least 64M",
		does:  "How large the metadata file is. It is written in full. 0 is by rule.",
		parse: parseLoopMetadataSize,
	},
	{
		name: "dm.preallocate", value: "true or false", def: "false",
		does: "Gives the data file all its blocks when it is made or grows, so that the pool cannot run out of " +
			"what its file system seems to have. It is refused if less than 15 % of the file system " +
			"would stay free. A sparse file of before gets what it lacks, or stays as it is if there is no room.",
		parse: boolOption(func(c *Config) *bool { return &c.Preallocate }),
	},
	{
		name: "dm.blocksize", value: "a size from 64k to 1G, a multiple of 64k",
		rule: "128k, doubled until the data has at most 2^25 blocks",
		does: "The unit in which the pool gives out space, fixed when it is made. " +
			"Small blocks make snapshots cheap, large ones make metadata small.",
		parse: parseBlockSize,
	},
	{
		name: "dm.skip_block_zeroing", value: "true or false", def: "false",
		does: "Leaves a new block as it was. Saves a write, and **shows a volume what another one held**: " +
			"only for pools with a single owner.",
		parse: boolOption(func(c *Config) *bool { return &c.SkipBlockZeroing }),
	},
	{
		name: "dm.error_if_no_space", value: "true or false", rule: "`true`",
		does: "Fails writes that need a new block when the pool is full. With false they wait for it to grow, " +
			"60 seconds by the kernel's rule, and unmounting waits with them.",
		parse: optionalBool(func(c *Config) **bool { return &c.ErrorIfNoSpace }),
	},
	{
		name: "dm.blkdiscard", value: "true or false", rule: "`true` on sparse files, else `false`",
		does: "Passes what is deleted on to the disk or file below, as discards. " +
			"It gives space back to a sparse file; on disks it takes time. " +
			"What a file system on a volume discards is always passed on, but with `dm.preallocate`, " +
			"which allows for none of it.",
		parse: optionalBool(func(c *Config) **bool { return &c.Discard }),
	},
	{
		name: "dm.min_free_space", value: "0% to 99%", def: "10%",
		does:  "How much of the data must be free for a new device or snapshot. 0% asks for none.",
		parse: percentOption(func(c *Config) *int { return &c.MinFreeSpace }),
	},
	{
		name: "dm.min_free_metadata", value: "0% to 99%", def: "25%",
		does: "How much of the metadata must be free for a new device or snapshot. " +
			"A pool without metadata cannot even delete.",
		parse: percentOption(func(c *Config) *int { return &c.MinFreeMetadata }),
	},
	{
		name: "dm.overprovision_ratio", value: "a number, 0 or more", def: "1.0",
		does: "How often the data may be promised: the sizes of all volumes together are at most so many times " +
			"that of the data. 0 is unlimited. Snapshots are admitted by free space alone.",
		parse: parseOverProvision,
	},
	{
		name: "dm.basesize", aliases: []string{"devicemapper.size", "storage.options.size", "size"},
		value: "a size above 0, such as 10G", def: "10G",
		does: "How large the base device is, of which devices without a parent are snapshots. " +
			"If given, an older and smaller base grows; a larger one is an error.",
		parse: sizeOption(func(c *Config) *int64 { return &c.BaseSize }),
	},
	{
		name: "dm.fs", value: "ext4 or xfs", def: "ext4",
		does:  "The file system of the base device, and of devices that name none.",
		parse: func(c *Config, value string) error { return parseFS(&c.FS, value, "ext4", "xfs") },
	},
	{
		name: "dm.mkfsarg", value: "words, quoted where needed", rule: "none",
		does:  "Arguments of mkfs, behind ours and before the device. Accumulates.",
		parse: parseMkfsArgs,
	},
	{
		name: "dm.mountopt", aliases: []string{"devicemapper.mountopt"},
		value: "mount options, with commas between", rule: "none",
		does:  "Options of every mount. Accumulates.",
		parse: parseMountOptions,
	},
	{
		name: "dm.xfs_nospace_max_retries", value: "a number, or unlimited", def: "0",
		does: "How often xfs repeats a metadata write that found no space, or failed, before it shuts the file system down. " +
			"unlimited, or -1, leaves it to the kernel, which repeats for ever while everything waits.",
		parse: parseRetries,
	},
	{
		name: "dm.lazy_unmount", value: "true or false", def: "false",
		does: "Detaches a mount that is busy instead of reporting it. " +
			"The device then stays active until its last file is closed.",
		parse: boolOption(func(c *Config) *bool { return &c.LazyUnmount }),
	},
	{
		name: "dm.use_deferred_removal", value: "true or false", def: "true",
		does:  "Lets the kernel deactivate a busy device when it is closed.",
		parse: boolOption(func(c *Config) *bool { return &c.DeferredRemoval }),
	},
	{
		name: "dm.use_deferred_deletion", value: "true or false", def: "true",
		does:  "Accepts the deletion of a busy device, and does it when it can. Needs `dm.use_deferred_removal`.",
		parse: boolOption(func(c *Config) *bool { return &c.DeferredDeletion }),
	},
	{
		name: "dm.prefix", value: "at most 32 of a-z, 0-9 and -, not - first", def: "csi-dmthin",
		does:  "How the dm names of the pool and its devices begin.",
		parse: parsePrefix,
	},

	idleOption("dm.override_udev_sync_check", "true or false", boolOption),
	idleOption("dm.libdm_log_level", "a number from 2 to 7", logLevelOption),
	idleOption("test", "true or false", boolOption),

	optionNotYet("dm.directlvm_device"),
	optionNotYet("dm.directlvm_device_force"),
	optionNotYet("dm.thinp_percent"),
	optionNotYet("dm.thinp_metapercent"),
	optionNotYet("dm.thinp_autoextend_threshold"),
	optionNotYet("dm.thinp_autoextend_percent"),
	optionNotYet("dm.metadata_size", "dm.metadatasize"),
}

// idleOption is one that the graph driver needed, mostly for libdevmapper. Its value is checked all
// the same: a mistake in it is a mistake.
func idleOption[T any](name, value string, parser func(func(*Config) *T) func(*Config, string) error) option {
	return option{
		name: name, value: value, rule: "none", idle: true,
		does:  "Nothing any more. Accepted, with a warning.",
		parse: parser(func(*Config) *T { return new(T) }),
	}
}

var errNotYet = errors.New("not yet")

// optionNotYet is one of those that have the driver set up LVM.
func optionNotYet(name string, aliases ...string) option {
	return option{
		name: name, aliases: aliases, value: "none", rule: "none",
		does: "Not yet. Give two disks as `dm.datadev` and `dm.metadatadev`, " +
			"or set up LVM yourself and name its pool in `dm.thinpooldev`.",
		parse: func(*Config, string) error {
			return fmt.Errorf("%w: give two disks as dm.datadev and dm.metadatadev, or a pool as dm.thinpooldev: %w",
				errNotYet, ErrInvalid)
		},
	}
}
