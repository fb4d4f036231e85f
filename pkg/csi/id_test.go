package csi

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/csi-dmthin/csi-dmthin/pkg/deviceset"
)

const someKey = "0123456789abcdef0123456789abcdef"

func FuzzParseID(f *testing.F) {
	for _, text := range []string{
		"", ".", someKey, someKey + ".", someKey + ".v-a", someKey + ".s-a", someKey + ".vx-" + someKey, someKey + ".v-" + strings.Repeat("a", 64),
		someKey + ".v-A", someKey + ".v-a\n", strings.ToUpper(someKey) + ".v-a", "../" + someKey + ".v-a", someKey + ".@base-ext4", "fake-vol-id",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range []kind{aVolume, aSnapshot} {
			i, err := parseID(k, text)
			if err != nil {
				if i != (id{}) {
					t.Errorf("%q is refused and is %v", text, i)
				}
				continue
			}
			switch {
			case i.String() != text:
				t.Errorf("%q prints as %q", text, i)
			case kindOf(i.device) != k:
				t.Errorf("%q is a %q, not a %q", text, kindOf(i.device), k)
			case len(text) > 128 || len(i.pool) != 32 || strings.ContainsAny(text, "/\x00 "):
				t.Errorf("%q is odd", text)
			case deviceset.CheckName(i.device) != nil:
				t.Errorf("%q is the name of no device", i.device)
			}
		}
		// Whatever something is called, its id can be parsed, and is that of nothing else.
		if !utf8.ValidString(text) {
			return
		}
		for _, k := range []kind{aVolume, aSnapshot} {
			i := id{someKey, k.deviceName(text)}
			if back, err := parseID(k, i.String()); err != nil || back != i {
				t.Errorf("%q: %s: %v, %v", text, i, back, err)
			}
			if other := k.deviceName(text + "x"); other == i.device {
				t.Errorf("%q and one more letter are both %s", text, other)
			}
			if isPlain(text) != strings.HasSuffix(i.device, "-"+text) {
				t.Errorf("%q is %s", text, i.device)
			}
		}
	})
}
