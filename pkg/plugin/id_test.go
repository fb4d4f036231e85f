package plugin

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
		for _, k := range []Kind{Volume, Snapshot} {
			i, err := ParseID(k, text)
			if err != nil {
				if i != (ID{}) {
					t.Errorf("%q is refused and is %v", text, i)
				}
				continue
			}
			switch {
			case i.String() != text:
				t.Errorf("%q prints as %q", text, i)
			case KindOf(i.Device) != k:
				t.Errorf("%q is a %q, not a %q", text, KindOf(i.Device), k)
			case len(text) > 128 || len(i.Pool) != 32 || strings.ContainsAny(text, "/\x00 "):
				t.Errorf("%q is odd", text)
			case deviceset.CheckName(i.Device) != nil:
				t.Errorf("%q is the name of no device", i.Device)
			}
		}
		// Whatever something is called, its id can be parsed, and is that of nothing else.
		if !utf8.ValidString(text) {
			return
		}
		for _, k := range []Kind{Volume, Snapshot} {
			i := ID{someKey, k.DeviceName(text)}
			if back, err := ParseID(k, i.String()); err != nil || back != i {
				t.Errorf("%q: %s: %v, %v", text, i, back, err)
			}
			if other := k.DeviceName(text + "x"); other == i.Device {
				t.Errorf("%q and one more letter are both %s", text, other)
			}
			if isPlain(text) != strings.HasSuffix(i.Device, "-"+text) {
				t.Errorf("%q is %s", text, i.Device)
			}
		}
	})
}
