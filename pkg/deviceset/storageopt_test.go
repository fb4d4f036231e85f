package deviceset

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseStorageOpt(t *testing.T) {
	for _, test := range []struct {
		given map[string]string
		want  DeviceOptions
	}{
		{nil, DeviceOptions{}},
		{map[string]string{"size": "10G"}, DeviceOptions{Size: 10 << 30}},
		{map[string]string{"SIZE": "0"}, DeviceOptions{}},
		{map[string]string{"fs": "ext4"}, DeviceOptions{FS: "ext4"}},
		{map[string]string{"Fs": "xfs"}, DeviceOptions{FS: "xfs"}},
		{map[string]string{"fs": "none"}, DeviceOptions{FS: "none"}},
		{map[string]string{"mkfsarg": "-O '^has journal'"}, DeviceOptions{MkfsArgs: []string{"-O", "^has journal"}}},
		{map[string]string{"readonly": "true"}, DeviceOptions{ReadOnly: true}},
		{map[string]string{"ReadOnly": "0"}, DeviceOptions{}},
		{
			map[string]string{"label.a": "", "Label.A": "ä b=c", "LABEL.k8s.io/pvc_x-1": strings.Repeat("v", 256)},
			DeviceOptions{Labels: map[string]string{"a": "", "A": "ä b=c", "k8s.io/pvc_x-1": strings.Repeat("v", 256)}},
		},
		{
			map[string]string{"size": "1.5T", "fs": "xfs", "mkfsarg": "-K", "readonly": "1", "label.a": "b"},
			DeviceOptions{
				Size: 3 << 39, FS: "xfs", MkfsArgs: []string{"-K"}, ReadOnly: true, Labels: map[string]string{"a": "b"},
			},
		},
	} {
		if have, err := parseStorageOpt(test.given); err != nil || !reflect.DeepEqual(have, test.want) {
			t.Errorf("%q: have %+v, error %v", test.given, have, err)
		}
	}
}

func TestParseStorageOptRefuses(t *testing.T) {
	for _, test := range []struct {
		given map[string]string
		cause string
	}{
		{map[string]string{"sizes": "1G"}, `storage option "sizes": unknown`},
		{map[string]string{"": ""}, `storage option "": unknown`},
		{map[string]string{" size": "1G"}, "unknown"},
		{map[string]string{"label": "a"}, "unknown"},
		{map[string]string{"size": ""}, "want a size"},
		{map[string]string{"size": "-1"}, `storage option "size": value "-1": want a size`},
		{map[string]string{"size": "0.3k"}, "whole number"},
		{map[string]string{"size": "8192P"}, "2^63"},
		{map[string]string{"fs": ""}, "want ext4, xfs or none"},
		{map[string]string{"fs": "ext3"}, "want ext4, xfs or none"},
		{map[string]string{"fs": "btrfs"}, "Linux 6.7"},
		{map[string]string{"mkfsarg": ""}, "want words"},
		{map[string]string{"mkfsarg": "'a"}, "no closing '"},
		{map[string]string{"mkfsarg": "-K", "fs": "none"}, "nothing to make"},
		{map[string]string{"readonly": "yes"}, "want true or false"},
		{map[string]string{"label.": "a"}, "want label.KEY"},
		{map[string]string{"label.a b": "a"}, "want label.KEY"},
		{map[string]string{"label.ä": "a"}, "want label.KEY"},
		{map[string]string{"label.a\n": "a"}, "want label.KEY"},
		{map[string]string{"label." + strings.Repeat("k", 64): "a"}, "want label.KEY"},
		{map[string]string{"label.a": strings.Repeat("v", 257)}, "at most 256 bytes"},
		{map[string]string{"label.a": "a\nb"}, "that print"},
		{map[string]string{"label.a": "\xff"}, "that print"},
		{map[string]string{"size": "1G", "Size": "1G"}, `storage option "size": is also given as "Size"`},
		{map[string]string{"label.a": "1", "LABEL.a": "1"}, `storage option "label.a": is also given as "LABEL.a"`},
	} {
		have, err := parseStorageOpt(test.given)
		if !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(have, DeviceOptions{}) {
			t.Errorf("%q is not refused: %+v, error %v", test.given, have, err)
		} else if !strings.Contains(err.Error(), test.cause) {
			t.Errorf("%q: the error %q lacks %q", test.given, err, test.cause)
		}
	}
}

// TestParseStorageOptIsDeterministic: a map has no order, an error has.
func TestParseStorageOptIsDeterministic(t *testing.T) {
	for range 100 {
		_, err := parseStorageOpt(map[string]string{"size": "x", "fs": "x", "readonly": "x", "zzz": "x", "mkfsarg": ""})
		if err == nil || !strings.HasPrefix(err.Error(), `storage option "fs"`) {
			t.Fatal(err)
		}
	}
}
