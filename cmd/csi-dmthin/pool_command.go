package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func poolCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "pool",
		Short: "change a pool",
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q: want grow", args[0], command.CommandPath())
			}
			return command.Help()
		},
	}
	command.AddCommand(growCommand())
	return command
}

func growCommand() *cobra.Command {
	var socket string
	command := &cobra.Command{
		Use:   "grow POOL SIZE",
		Short: "make a pool's data larger while it is in use, and its metadata in proportion",
		Long: "Make a pool's data SIZE large while it is in use, and its metadata in proportion. A pool on files takes what it\n" +
			"needs from the file system; disks must have been made larger before. No pool shrinks.",
		Args: cobra.ExactArgs(2),
	}
	socketFlag(command, &socket)
	form := outputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		size, err := parseSize("size", args[1])
		if err != nil {
			return err
		}
		var g growth
		path := "/v1/pools/" + url.PathEscape(args[0]) + "/size"
		if err := newClient(socket).do(command.Context(), http.MethodPut, path, poolSize{size}, &g); err != nil {
			return err
		}
		return form.print(command.OutOrStdout(), g, func(w io.Writer) error { return printGrowth(w, g) })
	}
	return command
}

func printGrowth(w io.Writer, g growth) error {
	text := fmt.Sprintf("pool %s has had %s of data and now has %s", g.Pool, humanSize(g.Before), humanSize(g.Status.Data.Total))
	if g.Before == g.Status.Data.Total {
		text = fmt.Sprintf("pool %s has %s of data, as before", g.Pool, humanSize(g.Before))
	}
	_, err := fmt.Fprintf(w, "%s; metadata: %s\n", text, humanSize(g.Status.Metadata.Total))
	return err
}
