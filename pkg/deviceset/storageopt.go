package deviceset

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// DeviceOptions are what a device may have of its own.
type DeviceOptions struct {
	Size     int64  // bytes; 0 is the parent's size, or the base device's
	FS       string // "ext4", "xfs" or "none"; empty is the parent's, or the set's
	MkfsArgs []string
	ReadOnly bool
	Labels   map[string]string // nil if there are none
}

// A storageOption is one row of the table from which per-device options are
// parsed and docs/options.md is made.
type storageOption struct {
	key   string
	value string // what may be given, as the document and an error put it
	does  string
	parse func(d *DeviceOptions, key, value string) error
}

var storageOptionTable = []storageOption{
	{
		key: "size", value: "a size such as 10G, or 0",
		does:  "How large the device is. 0, or none, is as large as its parent or the base device.",
		parse: func(d *DeviceOptions, _, value string) (err error) { d.Size, err = ParseSize(value); return err },
	},
	{
		key: "fs", value: "ext4, xfs or none",
		does:  "The file system. None given is that of the parent, or what `dm.fs` says; `none` is a blank device.",
		parse: func(d *DeviceOptions, _, value string) error { return parseFS(&d.FS, value, "ext4", "xfs", "none") },
	},
	{
		key: "mkfsarg", value: "words, quoted where needed",
		does:  "Arguments of mkfs, behind ours and before the device.",
		parse: func(d *DeviceOptions, _, value string) (err error) { d.MkfsArgs, err = SplitWords(value); return err },
	},
	{
		key: "readonly", value: "true or false",
		does:  "Lets nobody write to the device, as befits a snapshot.",
		parse: func(d *DeviceOptions, _, value string) error { return parseBool(&d.ReadOnly, value) },
	},
	{
		key: labelPrefix + "KEY", value: "at most 256 bytes that print",
		does: "A note that is kept with the device. KEY is 1 to 63 of A-Z, a-z, 0-9, dot, _, / and -, " +
			"and keeps its case.",
		parse: parseLabel,
	},
}

// parseStorageOpt reads the options of one device. Keys are in any case, but for
// what follows "label.". Of several mistakes it reports the one whose key sorts
// first.
func parseStorageOpt(storageOpt map[string]string) (DeviceOptions, error) {
	var d DeviceOptions
	spelled := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(storageOpt)) {
		known := foldKey(key)
		if other, ok := spelled[known]; ok {
			return DeviceOptions{}, fmt.Errorf("storage option %q: is also given as %q: %w", key, other, ErrInvalid)
		}
		spelled[known] = key
		if err := d.set(known, storageOpt[key]); err != nil {
			return DeviceOptions{}, fmt.Errorf("storage option %q: %w", key, err)
		}
	}
	if d.FS == "none" && d.MkfsArgs != nil {
		return DeviceOptions{}, fmt.Errorf("storage options mkfsarg and fs=none: there is nothing to make: %w", ErrInvalid)
	}
	return d, nil
}

func (d *DeviceOptions) set(key, value string) error {
	label := strings.HasPrefix(key, labelPrefix)
	if label && !labelGrammar.MatchString(key) {
		return fmt.Errorf("want %sKEY with 1 to 63 of A-Z, a-z, 0-9, dot, _, / and - as KEY: %w", labelPrefix, ErrInvalid)
	}
	for _, o := range storageOptionTable {
		if key != o.key && !(label && o.key == labelPrefix+"KEY") {
			continue
		}
		if err := o.parse(d, key, value); err != nil {
			return fmt.Errorf("value %q: want %s: %w", value, o.value, err)
		}
		return nil
	}
	return fmt.Errorf("unknown: %w", ErrInvalid)
}

const labelPrefix = "label."

var labelGrammar = regexp.MustCompile(`^label\.[A-Za-z0-9._/-]{1,63}$`)

// foldKey lowers the case of key, but not of a label's own key.
func foldKey(key string) string {
	n := len(labelPrefix)
	if len(key) >= n && strings.EqualFold(key[:n], labelPrefix) {
		return labelPrefix + key[n:]
	}
	return strings.ToLower(key)
}

func parseLabel(d *DeviceOptions, key, value string) error {
	if !labelValue(value) {
		return ErrInvalid
	}
	if d.Labels == nil {
		d.Labels = make(map[string]string)
	}
	d.Labels[strings.TrimPrefix(key, labelPrefix)] = value
	return nil
}

func labelValue(value string) bool { return len(value) <= 256 && printable(value) }

// checkLabels refuses labels that storage options could not say, and more of them
// than a journal should carry.
func checkLabels(labels map[string]string) error {
	if len(labels) > mostLabels {
		return fmt.Errorf("%d labels: want %d at most: %w", len(labels), mostLabels, ErrInvalid)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !labelGrammar.MatchString(labelPrefix+key) || !labelValue(labels[key]) {
			return fmt.Errorf("label %q=%q: want 1 to 63 of A-Z, a-z, 0-9, dot, _, / and - as key, and at most 256 printable bytes: %w", key, labels[key], ErrInvalid)
		}
	}
	return nil
}

const mostLabels = 64
