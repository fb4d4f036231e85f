package main

import (
	"strings"
	"testing"
)

// drawn draws devices that are given as NAME or NAME<SOURCE, a gone source as NAME<<SOURCE.
func drawn(devices ...string) string {
	var all []listedDevice
	for _, text := range devices {
		name, source, _ := strings.Cut(text, "<")
		gone, isGone := strings.CutPrefix(source, "<")
		all = append(all, listedDevice{Name: name, Device: name, Pool: "p", Source: gone, SourceGone: isGone})
	}
	var b strings.Builder
	for _, t := range trees(all) {
		b.WriteString(t.String())
	}
	return b.String()
}

func TestTree(t *testing.T) {
	for _, c := range []struct {
		name, got, want string
	}{
		{"nothing", drawn(), ""},
		{"one", drawn("a"), "pool p\n└─ a\n"},
		{"two", drawn("b", "a"), "pool p\n├─ a\n└─ b\n"},
		{"a chain", drawn("c<b", "b<a", "a"), "pool p\n└─ a\n   └─ b\n      └─ c\n"},
		{"branches", drawn("a", "b<a", "c<b", "d<a", "e"), "pool p\n├─ a\n│  ├─ b\n│  │  └─ c\n│  └─ d\n└─ e\n"},
		{"a source that is gone", drawn("a<<x", "b", "c<<x"), "pool p\n├─ b\n└─ x (gone)\n   ├─ a\n   └─ c\n"},
		{"a source that nobody listed", drawn("a<x"), "pool p\n└─ a\n"},
		{"its ancestor's name", drawn("a<s", "s<<a"), "pool p\n└─ a (gone)\n   └─ s\n      └─ a\n"},
	} {
		if c.got != c.want {
			t.Errorf("%s: drawn as\n%swant\n%s", c.name, c.got, c.want)
		}
	}
}

// Pools have devices of one name.
func TestTreeOfTwoPools(t *testing.T) {
	var b strings.Builder
	for _, pool := range trees([]listedDevice{
		{Name: "a", Device: "a", Pool: "p"}, {Name: "b", Device: "b", Pool: "p", Source: "a"}, {Name: "b", Device: "b", Pool: "q", Source: "a"},
	}) {
		b.WriteString(pool.String())
	}
	if want := "pool p\n└─ a\n   └─ b\npool q\n└─ b\n"; b.String() != want {
		t.Errorf("drawn as\n%swant\n%s", b.String(), want)
	}
}
