package deviceset

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// optionTests tell of every option what it is by default, what it takes, what it
// does not, and what becomes of two.
var optionTests = map[string]struct {
	field   func(Config) any
	def     any
	with    []string       // what else must be given
	valid   map[string]any // value: what the field is then
	invalid []string
	twice   [2]string // both given, in this order
	after   any       // what the field is then
}{
	"dm.datadev": {
		field: func(c Config) any { return c.DataDevice }, def: "", with: []string{"dm.metadatadev=/dev/sdb"},
		valid:   map[string]any{"/dev/sda": "/dev/sda", "/dev/disk/by-id/wwn-0x5": "/dev/disk/by-id/wwn-0x5"},
		invalid: []string{"", "sda", "dev/sda", "/dev/../sda", "/dev//sda", "/dev/sda/", "/dev/s\x00a", "/dev/s\xffa"},
		twice:   [2]string{"/dev/sda", "/dev/sdc"}, after: "/dev/sdc",
	},
	"dm.metadatadev": {
		field: func(c Config) any { return c.MetadataDevice }, def: "", with: []string{"dm.datadev=/dev/sda"},
		valid:   map[string]any{"/dev/sdb": "/dev/sdb"},
		invalid: []string{"", "sdb", "./sdb"},
		twice:   [2]string{"/dev/sdb", "/dev/sdc"}, after: "/dev/sdc",
	},
	"dm.force": {
		field: func(c Config) any { return c.Force }, def: false,
		valid: map[string]any{"true": true, "false": false}, invalid: []string{"", "yes"},
		twice: [2]string{"true", "false"}, after: false,
	},
	"dm.thinpooldev": {
		field: func(c Config) any { return c.ThinPool }, def: "",
		valid: map[string]any{"vg-pool-tpool": "vg-pool-tpool", "/dev/mapper/vg-pool": "vg-pool", strings.Repeat("p", 127): strings.Repeat("p", 127)},
		invalid: []string{
			"", "/dev/mapper/", "/dev/dm-3", "vg/pool", "/dev/mapper/../dm-3", "/dev/mapper/..", ".", "a b", "a\nb",
			strings.Repeat("p", 128),
		},
		twice: [2]string{"one", "/dev/mapper/two"}, after: "two",
	},
	"dm.loopdatasize": {
		field: func(c Config) any { return c.LoopDataSize }, def: int64(100 << 30),
		valid: map[string]any{"1": int64(1), "2T": int64(2 << 40)}, invalid: []string{"", "0", "-1G", "1.5", "8192P"},
		twice: [2]string{"2G", "1G"}, after: int64(1 << 30),
	},
	"dm.loopmetadatasize": {
		field: func(c Config) any { return c.LoopMetadataSize }, def: int64(0),
		valid:   map[string]any{"0": int64(0), "2M": int64(2 << 20), "16G": int64(16 << 30)},
		invalid: []string{"", "-1", "2047k", "16385M", "much"},
		twice:   [2]string{"2G", "0"}, after: int64(0),
	},
	"dm.preallocate": {
		field: func(c Config) any { return c.Preallocate }, def: false,
		valid: map[string]any{"true": true, "0": false}, invalid: []string{"", "yes"},
		twice: [2]string{"true", "false"}, after: false,
	},
	"dm.blocksize": {
		field: func(c Config) any { return c.BlockSize }, def: dm.Sectors(0),
		valid:   map[string]any{"64k": dm.Sectors(128), "192K": dm.Sectors(384), "1G": dm.MaxBlockSize},
		invalid: []string{"", "0", "32k", "65k", "96k", "1025M", "2G", "-64k"},
		twice:   [2]string{"64k", "128k"}, after: dm.Sectors(256),
	},
	"dm.skip_block_zeroing": {
		field: func(c Config) any { return c.SkipBlockZeroing }, def: false,
		valid: map[string]any{"1": true, "false": false}, invalid: []string{"", "on"},
		twice: [2]string{"true", "false"}, after: false,
	},
	"dm.error_if_no_space": {
		field: func(c Config) any { return c.ErrorIfNoSpace }, def: (*bool)(nil),
		valid: map[string]any{"true": ptr(true), "false": ptr(false)}, invalid: []string{"", "queue"},
		twice: [2]string{"false", "true"}, after: ptr(true),
	},
	"dm.blkdiscard": {
		field: func(c Config) any { return c.Discard }, def: (*bool)(nil),
		valid: map[string]any{"true": ptr(true), "0": ptr(false)}, invalid: []string{"", "2"},
		twice: [2]string{"true", "false"}, after: ptr(false),
	},
	"dm.min_free_space": {
		field: func(c Config) any { return c.MinFreeSpace }, def: 10,
		valid:   map[string]any{"0%": 0, "99%": 99},
		invalid: []string{"", "%", "10", "100%", "-1%", "+1%", "1.5%", "10%%", "10 %"},
		twice:   [2]string{"5%", "7%"}, after: 7,
	},
	"dm.min_free_metadata": {
		field: func(c Config) any { return c.MinFreeMetadata }, def: 25,
		valid: map[string]any{"0%": 0, "50%": 50}, invalid: []string{"", "25", "100%"},
		twice: [2]string{"5%", "7%"}, after: 7,
	},
	"dm.overprovision_ratio": {
		field: func(c Config) any { return c.OverProvision }, def: 1.0,
		valid:   map[string]any{"0": 0.0, "2.5": 2.5, "10": 10.0},
		invalid: []string{"", "-1", "-0", "NaN", "Inf", "1e999", "many", "150%"},
		twice:   [2]string{"2", "3"}, after: 3.0,
	},
	"dm.basesize": {
		field: func(c Config) any { return c.BaseSize }, def: int64(10 << 30),
		valid: map[string]any{"20G": int64(20 << 30), "1.5T": int64(3 << 39)}, invalid: []string{"", "0", "-10G", "0.3k", "ten"},
		twice: [2]string{"2G", "1G"}, after: int64(1 << 30),
	},
	"dm.fs": {
		field: func(c Config) any { return c.FS }, def: "ext4",
		valid: map[string]any{"ext4": "ext4", "xfs": "xfs"}, invalid: []string{"", "ext3", "XFS", "none", "btrfs"},
		twice: [2]string{"xfs", "ext4"}, after: "ext4",
	},
	"dm.mkfsarg": {
		field: func(c Config) any { return c.MkfsArgs }, def: []string(nil),
		valid: map[string]any{
			"-i":                  []string{"-i"},
			"-O ^has_journal":     []string{"-O", "^has_journal"},
			`-L 'a b' -U "" \-m1`: []string{"-L", "a b", "-U", "", "-m1"},
		},
		invalid: []string{"", "'", `"a`, `a\`, "a\x00b", "a\xffb"},
		twice:   [2]string{"-O", "^has_journal"}, after: []string{"-O", "^has_journal"},
	},
	"dm.mountopt": {
		field: func(c Config) any { return c.MountOptions }, def: []string(nil),
		valid: map[string]any{
			"discard":         []string{"discard"},
			"noatime,discard": []string{"noatime", "discard"},
			"noatime, ro":     []string{"noatime", "ro"},
			`context="u:c,d"`: []string{`context="u:c`, `d"`},
		},
		invalid: []string{"", ",", "a,", ",a", "a,,b", "a b", "a\nb"},
		twice:   [2]string{"noatime,discard", "nodev"}, after: []string{"noatime", "discard", "nodev"},
	},
	"dm.xfs_nospace_max_retries": {
		field: func(c Config) any { return c.XFSNoSpaceRetries }, def: ptr(uint(0)),
		valid: map[string]any{
			"0": ptr(uint(0)), "5": ptr(uint(5)), "2147483647": ptr(uint(1<<31 - 1)),
			"unlimited": (*uint)(nil), "-1": (*uint)(nil),
		},
		invalid: []string{"", "-2", "2147483648", "few", "1.5"},
		twice:   [2]string{"unlimited", "3"}, after: ptr(uint(3)),
	},
	"dm.lazy_unmount": {
		field: func(c Config) any { return c.LazyUnmount }, def: false,
		valid: map[string]any{"true": true}, invalid: []string{"", "lazy"},
		twice: [2]string{"true", "false"}, after: false,
	},
	"dm.use_deferred_removal": {
		field: func(c Config) any { return c.DeferredRemoval }, def: true, with: []string{"dm.use_deferred_deletion=false"},
		valid: map[string]any{"true": true, "false": false}, invalid: []string{"", "maybe"},
		twice: [2]string{"true", "false"}, after: false,
	},
	"dm.use_deferred_deletion": {
		field: func(c Config) any { return c.DeferredDeletion }, def: true,
		valid: map[string]any{"true": true, "false": false}, invalid: []string{"", "maybe"},
		twice: [2]string{"false", "true"}, after: true,
	},
	"dm.prefix": {
		field: func(c Config) any { return c.Prefix }, def: "csi-dmthin",
		valid:   map[string]any{"a": "a", "pool-2": "pool-2", strings.Repeat("p", 32): strings.Repeat("p", 32)},
		invalid: []string{"", "-a", "A", "a_b", "a/b", "a.b", strings.Repeat("p", 33)},
		twice:   [2]string{"one", "two"}, after: "two",
	},

	// The set is the same whatever these say.
	"dm.override_udev_sync_check": {
		field: whole, def: defaultConfig(),
		valid: map[string]any{"true": defaultConfig(), "false": defaultConfig()}, invalid: []string{"", "maybe"},
		twice: [2]string{"true", "false"}, after: defaultConfig(),
	},
	"dm.libdm_log_level": {
		field: whole, def: defaultConfig(),
		valid: map[string]any{"2": defaultConfig(), "7": defaultConfig()}, invalid: []string{"", "1", "8", "debug"},
		twice: [2]string{"2", "7"}, after: defaultConfig(),
	},
	"test": {
		field: whole, def: defaultConfig(),
		valid: map[string]any{"true": defaultConfig()}, invalid: []string{"", "maybe"},
		twice: [2]string{"true", "false"}, after: defaultConfig(),
	},
}

func whole(c Config) any { return c }

func ptr[T any](v T) *T { return &v }

// TestEveryOptionIsTested holds the table and the tests together.
func TestEveryOptionIsTested(t *testing.T) {
	var known []string
	for _, o := range optionTable {
		known = append(known, o.name)
		if notYet(o) {
			continue
		}
		test, ok := optionTests[o.name]
		if !ok || test.field == nil || len(test.valid) == 0 || len(test.invalid) == 0 || test.twice == [2]string{} {
			t.Errorf("%s: want a default, valid and invalid values, and two at once", o.name)
		}
		if (o.def == "") == (o.rule == "") {
			t.Errorf("%s: want either a default or a rule", o.name)
		}
	}
	for name := range optionTests {
		if !slices.Contains(known, name) {
			t.Errorf("%s is tested, but there is no such option", name)
		}
	}
}

func TestEveryOption(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(optionTests)) {
		test := optionTests[name]
		o, _ := findOption(name)
		t.Run(name, func(t *testing.T) {
			check := func(want any, options ...string) {
				t.Helper()
				c, _, err := ParseOptions(options)
				c.BaseSizeGiven = false
				if have := test.field(c); err != nil || !reflect.DeepEqual(have, want) {
					t.Errorf("%q: have %#v, want %#v, error %v", options, have, want, err)
				}
			}
			check(test.def)
			for value, want := range test.valid {
				for _, key := range append(o.aliases, name, strings.ToUpper(name), " "+name+" ") {
					check(want, append(test.with, key+"="+value)...)
					check(want, append(test.with, key+"= "+value+" ")...)
				}
			}
			check(test.after, append(test.with, name+"="+test.twice[0], name+"="+test.twice[1])...)
			for _, value := range test.invalid {
				refused(t, append(test.with, name+"="+value), name+"=", "want "+o.value)
			}
		})
	}
}

// refused checks that options are an error that wraps ErrInvalid and has all texts.
func refused(t *testing.T, options []string, texts ...string) {
	t.Helper()
	c, warnings, err := ParseOptions(options)
	if !errors.Is(err, ErrInvalid) || warnings != nil || !reflect.DeepEqual(c, Config{}) {
		t.Errorf("%q is not refused: %+v, %q, error %v", options, c, warnings, err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q: the error %q lacks %q", options, err, text)
		}
	}
}

func notYet(o option) bool { return errors.Is(o.parse(&Config{}, "true"), errNotYet) }

func TestOptionsNotYet(t *testing.T) {
	for _, key := range []string{
		"dm.directlvm_device", "dm.directlvm_device_force", "dm.thinp_percent", "dm.thinp_metapercent",
		"dm.thinp_autoextend_threshold", "dm.thinp_autoextend_percent", "dm.metadata_size", "dm.metaDataSize",
	} {
		for _, value := range []string{"", "true", "95%", "/dev/sda"} {
			refused(t, []string{key + "=" + value}, strings.ToLower(key), "not yet", "dm.datadev and dm.metadatadev", "dm.thinpooldev")
		}
	}
}

func TestUnknownOptions(t *testing.T) {
	for text, want := range map[string]string{
		"":                 "want key=value",
		"dm.fs":            "want key=value",
		"=":                `option "": unknown: `,
		"dm.=":             `option "dm.": unknown: `,
		"dm.frobnicate=1":  `option "dm.frobnicate": unknown: `,
		"dm.basesiz=1G":    "did you mean dm.basesize?",
		"basesize=1G":      "did you mean dm.basesize?",
		"dm.Block-Size=1G": `option "dm.block-size": unknown, did you mean dm.blocksize?`,
		"dm.metadata_dev=": "did you mean dm.metadatadev?",
		"dm.thinpooldve=a": "did you mean dm.thinpooldev?",
		"dm.a=b":           `option "dm.a": unknown: `,
		"fs.dm=ext4":       `option "fs.dm": unknown: `,
	} {
		refused(t, []string{text}, want)
	}
	refused(t, []string{strings.Repeat("k", 1<<20) + "=1"}, "unknown: ")
}

func TestTheFirstWrongOptionIsReported(t *testing.T) {
	refused(t, []string{"dm.fs=ext4", "dm.prefix=_", "dm.nonsense=1", "dm.fs"}, "dm.prefix")
}

func TestOptionConflicts(t *testing.T) {
	const pool, data, metadata = "dm.thinpooldev=pool", "dm.datadev=/dev/sda", "dm.metadatadev=/dev/sdb"
	for _, options := range [][]string{
		{data},
		{metadata},
		{data, "dm.metadatadev=/dev/sda"},
		{pool, data, metadata},
		{pool, data},
		{pool, metadata},
		{pool, "dm.loopdatasize=100G"},
		{pool, "dm.loopmetadatasize=0"},
		{pool, "dm.preallocate=false"},
		{pool, "dm.blocksize=64k"},
		{pool, "dm.skip_block_zeroing=false"},
		{pool, "dm.error_if_no_space=true"},
		{pool, "dm.force=false"},
		{data, metadata, "dm.loopdatasize=1G"},
		{data, metadata, "dm.loopmetadatasize=1G"},
		{data, metadata, "dm.preallocate=true"},
		{"dm.preallocate=true", "dm.blkdiscard=true"},
		{"dm.use_deferred_removal=false"},
		{"dm.use_deferred_removal=false", "dm.use_deferred_deletion=true"},
	} {
		refused(t, options, "options dm.")
		slices.Reverse(options)
		refused(t, options, "options dm.")
	}
	refused(t, []string{"dm.use_deferred_removal=false"}, "dm.use_deferred_deletion", "dm.use_deferred_removal")

	for _, options := range [][]string{
		{pool, "dm.basesize=1G", "dm.fs=xfs", "dm.blkdiscard=true", "dm.min_free_space=0%"},
		{data, metadata, "dm.blocksize=64k", "dm.force=true", "dm.skip_block_zeroing=true", "dm.error_if_no_space=false"},
		{"dm.loopdatasize=1G", "dm.loopmetadatasize=16M", "dm.blocksize=64k"},
		{"dm.preallocate=true", "dm.blkdiscard=false"},
		{"dm.preallocate=false", "dm.blkdiscard=true"},
		{"dm.use_deferred_removal=false", "dm.use_deferred_deletion=false"},
	} {
		if _, warnings, err := ParseOptions(options); err != nil || warnings != nil {
			t.Errorf("%q: warnings %q, error %v", options, warnings, err)
		}
	}
}

// TestGivenBaseSize: the default must not grow a base that was made with less.
func TestGivenBaseSize(t *testing.T) {
	for option, want := range map[string]bool{
		"dm.fs=ext4": false, "dm.basesize=10G": true, "devicemapper.size=1G": true, "storage.options.size=1G": true, "size=1G": true,
	} {
		if c, _, err := ParseOptions([]string{option}); err != nil || c.BaseSizeGiven != want {
			t.Errorf("%s: given is %v, error %v", option, c.BaseSizeGiven, err)
		}
	}
}

func TestOptionWarnings(t *testing.T) {
	_, warnings, err := ParseOptions([]string{
		"test=true", "dm.libdm_log_level=3", "dm.fs=xfs", "test=false", "dm.override_udev_sync_check=true",
	})
	if err != nil || len(warnings) != 1 {
		t.Fatalf("warnings %q, error %v", warnings, err)
	}
	if want := ": dm.override_udev_sync_check, dm.libdm_log_level, test"; !strings.HasSuffix(warnings[0], want) {
		t.Errorf("the warning %q does not end in %q", warnings[0], want)
	}
}

// TestBtrfsIsRefusedWithItsReason, since people will ask.
func TestBtrfsIsRefusedWithItsReason(t *testing.T) {
	refused(t, []string{"dm.fs=btrfs"}, "want ext4 or xfs", "Linux 6.7")
}

// TestConfigsShareNothing: what one caller does to its Config is no other's.
func TestConfigsShareNothing(t *testing.T) {
	a, _, _ := ParseOptions(nil)
	*a.XFSNoSpaceRetries = 7
	b, _, _ := ParseOptions(nil)
	if *b.XFSNoSpaceRetries != 0 {
		t.Error("the default is shared")
	}
}
