package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// newNodeFlags returns the flags of node.
func newNodeFlags(c *config) *pflag.FlagSet {
	f := pflag.NewFlagSet("node", pflag.ContinueOnError)
	var n nodeConfig
	n.register(f, c)
	return f
}

// A node's own pools take the place of the others.
func TestPoolsOfANode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := "node: nb\npools: {default: {loopdatasize: 1G}}\nnodes:\n  nb: {pools: {fast: {datadev: /dev/a, metadatadev: /dev/b}}}\n  nc: {pools: {}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]string{
		"":   "fast:datadev=/dev/a,metadatadev=/dev/b",
		"na": "default:loopdatasize=1G",
		"nc": "default:loopdatasize=20G,preallocate=true",
	} {
		var c config
		f := newNodeFlags(&c)
		if node != "" {
			if err := f.Set("node", node); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Set("config", file); err != nil {
			t.Fatal(err)
		}
		if err := c.complete(f); err != nil {
			t.Fatal(err)
		}
		if got := c.Pools.String(); got != want {
			t.Errorf("node %q has %s, want %s", node, got, want)
		}
	}
}

// What cannot be is refused in one line that names it.
func TestNodeConfigThatCannotBe(t *testing.T) {
	for text, words := range map[string][]string{
		"nodes: [a]":                              {"nodes", "by name"},
		"nodes: {a: {pool: {}}}":                  {"nodes", "a", "pools"},
		"nodes: {a: {pools: {x: {datadev: /a}}}}": {"nodes", "a", "pool x"},
		"controler: x:1":                          {"controler"},
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var c config
		f := newNodeFlags(&c)
		if err := f.Set("config", file); err != nil {
			t.Fatal(err)
		}
		err := c.complete(f)
		if err == nil {
			t.Errorf("%s is taken", text)
			continue
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: no %q in: %v", text, word, err)
			}
		}
	}
	var c config
	n := nodeConfig{Controller: "nowhere"}
	if err := n.complete(&c); err == nil || !strings.Contains(err.Error(), "--controller") {
		t.Errorf("a controller without a port: %v", err)
	}
}
