package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// The archive as a kernel reads it: see entry.
func TestArchive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "initramfs")
	var a archive
	a.add("lib/modules/one.ko", []byte("12345"))
	a.add("lib/modules/two.ko", nil)
	a.add("init", []byte("program"))
	if err := a.write(file); err != nil {
		t.Fatal(err)
	}
	var got []string
	for rest := read(t, file); rest != ""; {
		var mode, size, length int
		header := rest[:110]
		if _, err := fmt.Sscanf(header[:6]+header[14:22]+header[54:62]+header[94:102],
			"070701%8x%8x%8x", &mode, &size, &length); err != nil {
			t.Fatal(err)
		}
		name := rest[110 : 110+length-1]
		data := rest[align(110+length):][:size]
		rest = rest[align(align(110+length)+size):]
		got = append(got, fmt.Sprintf("%o %s %s", mode, name, data))
	}
	want := `40755 lib 
40755 lib/modules 
100755 lib/modules/one.ko 12345
100755 lib/modules/two.ko 
100755 init program
0 TRAILER!!! `
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("%s", s)
	}
}

func align(n int) int { return (n + 3) &^ 3 }
