package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/csi-dmthin/csi-dmthin/pkg/csi"
)

func volumesCommand() *cobra.Command {
	command := listCommand("volumes", "list volumes", csi.KindVolume, csi.KindOther)
	orphansFlag(command)
	return command
}

func snapshotsCommand() *cobra.Command {
	return listCommand("snapshots", "list snapshots", csi.KindSnapshot)
}

// listCommand lists devices of some kinds.
func listCommand(name, short string, kinds ...string) *cobra.Command {
	var socket, pool string
	var tree bool
	command := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs}
	socketFlag(command, &socket)
	poolFlag(command, &pool)
	command.Flags().BoolVar(&tree, "tree", false, "draw which volume and snapshot was made from which")
	form := outputFlag(command, outputWide)
	command.RunE = func(command *cobra.Command, _ []string) error {
		var list deviceList
		if err := newClient(socket).get(command.Context(), "/v1/devices", ofPool(pool), &list); err != nil {
			return err
		}
		if !tree {
			list.Devices = slices.DeleteFunc(list.Devices, func(d listedDevice) bool { return !slices.Contains(kinds, d.Kind) })
		}
		err := form.print(command.OutOrStdout(), list, func(w io.Writer) error {
			if tree {
				return printTree(w, list.Devices)
			}
			return printDevices(w, list.Devices, *form == outputWide)
		})
		return errors.Join(err, list.incomplete())
	}
	return command
}

// incomplete is an error where a list is not whole, so that nobody takes it for that.
func (l deviceList) incomplete() error {
	var all []string
	for _, m := range l.Missing {
		all = append(all, fmt.Sprintf("pool %s is not listed: %s", m.Pool, m.Problem))
	}
	if all == nil {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}

func printDevices(w io.Writer, devices []listedDevice, wide bool) error {
	header := []string{"NAME", "POOL", "SIZE", "USED", "EXCLUSIVE", "FS", "SOURCE", "CREATED", "DEVICE"}
	if wide {
		header = append(header, "BLOCK DEVICE", "ID")
	}
	rows := [][]string{header}
	for _, d := range devices {
		row := []string{
			d.Name, d.Pool, humanSize(d.Size), optionalSize(d.Used), optionalSize(d.Exclusive), d.fsText(), d.sourceText(),
			d.Created.Format(time.RFC3339), d.Device,
		}
		if wide {
			row = append(row, d.BlockDevice, d.ID)
		}
		rows = append(rows, row)
	}
	if err := printTable(w, rows...); err != nil {
		return err
	}
	return printProblems(w, devices)
}

// printProblems says below a table which devices may not be used.
func printProblems(w io.Writer, devices []listedDevice) error {
	for _, d := range devices {
		if d.Problem == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", d.Device, d.Problem); err != nil {
			return err
		}
	}
	return nil
}

func optionalSize(bytes *int64) string {
	if bytes == nil {
		return ""
	}
	return humanSize(*bytes)
}

func (d listedDevice) fsText() string {
	switch {
	case d.Block:
		return "block"
	case d.FileSystem != "" && !d.Formatted:
		return d.FileSystem + " (blank)"
	}
	return d.FileSystem
}

func (d listedDevice) sourceText() string {
	if d.SourceGone {
		return d.Source + " (gone)"
	}
	return d.Source
}
