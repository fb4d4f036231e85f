package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var socket, pool string
	command := &cobra.Command{
		Use:   "check",
		Short: "look whether pool, journal and kernel agree",
		Long:  "Look whether pool, journal and kernel agree. Nothing is changed. The exit status is 1 if anything is wrong.",
		Args:  cobra.NoArgs,
	}
	socketFlag(command, &socket)
	poolFlag(command, &pool)
	form := outputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		var checks []poolCheck
		if err := newClient(socket).get(command.Context(), "/v1/check", ofPool(pool), &checks); err != nil {
			return err
		}
		err := form.print(command.OutOrStdout(), checks, func(w io.Writer) error { return printChecks(w, checks) })
		return errors.Join(err, verdict(checks))
	}
	return command
}

func printChecks(w io.Writer, checks []poolCheck) error {
	var b strings.Builder
	for _, c := range checks {
		if len(c.Findings) == 0 {
			fmt.Fprintf(&b, "pool %s: in order\n", c.Pool)
			continue
		}
		fmt.Fprintf(&b, "pool %s: %s\n", c.Pool, counted(len(c.Findings)))
		for _, f := range c.Findings {
			says := f.Says
			if f.Object != "" {
				says = f.Object + ": " + says
			}
			fmt.Fprintf(&b, "  %-14s  %s\n  %-14s  => %s\n", f.Kind, says, "", f.Do)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func counted(findings int) string {
	if findings == 1 {
		return "1 finding"
	}
	return fmt.Sprintf("%d findings", findings)
}

// verdict is an error if anything is wrong.
func verdict(checks []poolCheck) error {
	var bad []string
	for _, c := range checks {
		if n := len(c.Findings); n > 0 {
			bad = append(bad, fmt.Sprintf("pool %s has %s", c.Pool, counted(n)))
		}
	}
	if bad == nil {
		return nil
	}
	return fmt.Errorf("check: %s", strings.Join(bad, ", "))
}
