package devmapper

import "testing"

func TestSectors(t *testing.T) {
	for bytes, want := range map[int64]Sectors{-512: 0, 0: 0, 511: 0, 512: 1, 1 << 40: 1 << 31} {
		if have := SectorsIn(bytes); have != want {
			t.Errorf("%d bytes hold %d sectors, want %d", bytes, have, want)
		}
	}
	if have := Sectors(3).Bytes(); have != 1536 {
		t.Errorf("3 sectors have %d bytes", have)
	}
}

func TestDevNo(t *testing.T) {
	for text, want := range map[string]DevNo{"0:0": 0, "8:1": 0x801, "253:4660": 0x120fd34, "4095:1048575": 0xffffffff} {
		have, err := ParseDevNo(text)
		if err != nil || have != want || have.String() != text {
			t.Errorf("%s parses as %#x and prints as %s, error %v", text, uint64(have), have, err)
		}
	}
	for _, text := range []string{"", "8", "8:", ":8", "a:b", "4096:0", "0:1048576", "-1:0", "8:0 "} {
		if have, err := ParseDevNo(text); err == nil {
			t.Errorf("%q parses as %v", text, have)
		}
	}
}

// FuzzParseDevNo holds printing and parsing together.
func FuzzParseDevNo(f *testing.F) {
	f.Add("253:5")
	f.Fuzz(func(t *testing.T, text string) {
		dev, err := ParseDevNo(text)
		if err != nil {
			return
		}
		if again, err := ParseDevNo(dev.String()); err != nil || again != dev {
			t.Errorf("%q parses as %v, and that as %v, error %v", text, dev, again, err)
		}
	})
}
