package deviceset

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func FuzzParseOptions(f *testing.F) {
	for name, test := range optionTests {
		for value := range test.valid {
			f.Add(strings.Join(append(test.with, name+"="+value), "\n"))
		}
		f.Add(name + "=" + test.invalid[len(test.invalid)-1])
	}
	f.Add("dm.thinpooldev=pool\ndm.force=true")
	f.Fuzz(func(t *testing.T, text string) {
		options := strings.Split(text, "\n")
		c, warnings, err := ParseOptions(options)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(c, Config{}) || warnings != nil {
				t.Errorf("%q: %+v, %q, error %v", options, c, warnings, err)
			}
			return
		}
		checkConfig(t, c)
		again, _, err := ParseOptions(options)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%q parses as %+v, and then as %+v, error %v", options, c, again, err)
		}
		// Twice the same is the same, but for what accumulates.
		twice, _, err := ParseOptions(append(options, options...))
		twice.MkfsArgs, twice.MountOptions = c.MkfsArgs, c.MountOptions
		if err != nil || !reflect.DeepEqual(c, twice) {
			t.Errorf("%q parses as %+v, twice as %+v, error %v", options, c, twice, err)
		}
	})
}

// checkConfig says what may be relied on, whatever was given.
func checkConfig(t *testing.T, c Config) {
	t.Helper()
	for what, ok := range map[string]bool{
		"sizes":        c.BaseSize > 0 && c.LoopDataSize > 0 && c.LoopMetadataSize >= 0,
		"fs":           c.FS == "ext4" || c.FS == "xfs",
		"disks":        (c.DataDevice == "") == (c.MetadataDevice == ""),
		"kind of pool": c.DataDevice == "" || c.ThinPool == "",
		"ahead":        !c.Preallocate || c.DataDevice == "" && c.ThinPool == "" && (c.Discard == nil || !*c.Discard),
		"block size":   c.BlockSize%128 == 0 && c.BlockSize <= 1<<21,
		"percents":     c.MinFreeSpace >= 0 && c.MinFreeSpace < 100 && c.MinFreeMetadata >= 0 && c.MinFreeMetadata < 100,
		"ratio":        c.OverProvision >= 0,
		"deferred":     c.DeferredRemoval || !c.DeferredDeletion,
		"prefix":       prefixGrammar.MatchString(c.Prefix),
	} {
		if !ok {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

func FuzzParseStorageOpt(f *testing.F) {
	f.Add("size", "1.5T", "fs", "xfs")
	f.Add("mkfsarg", `-L "a b"`, "ReadOnly", "true")
	f.Add("Label.a/b", "ä", "label.a/b", "c")
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string) {
		given := map[string]string{key1: value1, key2: value2}
		d, err := parseStorageOpt(given)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(d, DeviceOptions{}) {
				t.Errorf("%q: %+v, error %v", given, d, err)
			}
			return
		}
		if d.Size < 0 || d.FS == "btrfs" {
			t.Errorf("%q: %+v", given, d)
		}
		for key, value := range d.Labels {
			if len(key) > 63 || len(value) > 256 {
				t.Errorf("%q: %+v", given, d)
			}
		}
	})
}

// FuzzSplitWords holds quoting and splitting together.
func FuzzSplitWords(f *testing.F) {
	f.Add(`-L 'a b' "c\"d" \e ''`)
	f.Fuzz(func(t *testing.T, text string) {
		words, err := SplitWords(text)
		if err != nil {
			return
		}
		if again, err := SplitWords(joinWords(words)); err != nil || !reflect.DeepEqual(words, again) {
			t.Errorf("%q splits into %q, and that into %q, error %v", text, words, again, err)
		}
	})
}
