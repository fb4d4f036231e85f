package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Each command is in the document, each kind of finding, and each route.
func TestCommandsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/commands.md")
	must0(t, err)
	var words []string
	for _, command := range rootCommand().Commands() {
		if !command.HasSubCommands() {
			words = append(words, "csi-dmthin "+command.Name()+"\n", "`"+command.Name()+"`")
			continue
		}
		for _, below := range command.Commands() {
			words = append(words, strings.TrimSpace(below.CommandPath()), "`"+command.Name()+" "+below.Name()+"`")
		}
	}
	for _, kind := range []string{
		isNotOpen, isInMode, needsCheck, isReadOnly, isUnknown, isGhost, isOrphan, isQuarantined, isOpenOperation,
		isSuspended, hasNoTable, hasInactive, differsInSize,
	} {
		words = append(words, "`"+kind+"`")
	}
	for _, word := range words {
		if !strings.Contains(string(text), strings.TrimSpace(word)) {
			t.Errorf("docs/commands.md has no %q", word)
		}
	}
}

// Each command and flag says in a line what it is.
func TestHelp(t *testing.T) {
	var look func(*cobra.Command)
	look = func(command *cobra.Command) {
		if command.Short == "" || strings.HasSuffix(command.Short, ".") {
			t.Errorf("%s: %q", command.CommandPath(), command.Short)
		}
		for _, below := range command.Commands() {
			look(below)
		}
	}
	look(rootCommand())
	out, err := program(t, "adopt", "-h")
	must0(t, err)
	if strings.Contains(out, "kubelet-dir") || !strings.Contains(out, "--state-dir") {
		t.Errorf("adopt -h prints\n%s", out)
	}
}
