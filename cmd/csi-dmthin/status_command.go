package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

func statusCommand() *cobra.Command {
	var socket, pool string
	command := &cobra.Command{
		Use:   "status",
		Short: "tell how full the pools are, and what is wrong with them",
		Args:  cobra.NoArgs,
	}
	socketFlag(command, &socket)
	poolFlag(command, &pool)
	form := outputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		var pools []poolStatus
		if err := newClient(socket).get(command.Context(), "/v1/status", ofPool(pool), &pools); err != nil {
			return err
		}
		return form.print(command.OutOrStdout(), pools, func(w io.Writer) error { return printStatus(w, pools) })
	}
	return command
}

// poolFlag lets a command be about one pool.
func poolFlag(command *cobra.Command, pool *string) {
	command.Flags().StringVar(pool, "pool", "", "`name` of the pool; all, if none is given")
}

func printStatus(w io.Writer, pools []poolStatus) error {
	var b strings.Builder
	for i, p := range pools {
		if i > 0 {
			b.WriteString("\n")
		}
		p.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p poolStatus) write(b *strings.Builder) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-12s  %s\n", name, fmt.Sprintf(format, args...))
	}
	if p.Problem != "" {
		fmt.Fprintf(b, "pool %s: not open\n", p.Pool)
		line("problem", "%s", p.Problem)
		return
	}
	fmt.Fprintf(b, "pool %s: %s\n", p.Pool, p.state())
	if p.Retired {
		line("retired", "it is not in the configuration: it serves what it has, and takes no new volumes")
	}
	line("data", "%s", p.Data)
	line("metadata", "%s", p.Metadata)
	if p.MetadataHeldBack > 0 {
		line("held back", "%s of metadata, for when it runs short", humanSize(p.MetadataHeldBack))
	}
	line("promised", "%s", p.Promised)
	line("room", "%s", p.roomText())
	line("grow-to", "%s", p.growText())
	line("devices", "%s", p.devicesText())
	line("snapshots", "%d taken so far, of %d that a pool can have", p.Snapshots, mostSnapshots)
	if p.DataOn != "" {
		line("lies on", "%s, metadata on %s", p.DataOn, p.MetadataOn)
	}
	line("uuid", "%s", p.UUID)
	line("key", "%s", p.Key)
	p.writeFindings(line)
}

// mostSnapshots is where a pool's count of them ends.
const mostSnapshots = 1 << 24

func (p poolStatus) state() string {
	state := p.Mode
	if p.NeedsCheck {
		state += ", needs a check"
	}
	if p.ReadOnly != "" {
		state += ", read-only"
	}
	return state
}

// String prints a fill as a bar and figures.
func (f *fill) String() string {
	if f.Total == 0 {
		return bar(0, 0, 0) + "  not known"
	}
	text := fmt.Sprintf("%s %4s  %s of %s, %s free", bar(f.Used, f.Total, f.KeptFree), percent(f.Used, f.Total),
		humanSize(f.Used), humanSize(f.Total), humanSize(f.Available))
	if f.Used+f.Available < f.Total {
		text += " below"
	}
	if f.KeptFree > 0 {
		text += fmt.Sprintf("; %s are to stay free (%s=%d%%)", humanSize(f.KeptFree), f.Option, f.Percent)
	}
	return text
}

// String prints what is promised as a bar and figures.
func (p *promised) String() string {
	switch {
	case p.Ratio == 0:
		return fmt.Sprintf("%s, without limit (overprovision_ratio=0)", humanSize(p.Bytes))
	case p.Limit == 0:
		return bar(0, 0, 0) + "  " + humanSize(p.Bytes)
	}
	return fmt.Sprintf("%s %4s  %s of %s (overprovision_ratio=%g)", bar(p.Bytes, p.Limit, 0), percent(p.Bytes, p.Limit),
		humanSize(p.Bytes), humanSize(p.Limit), p.Ratio)
}

func (p poolStatus) roomText() string {
	if p.Room == 0 {
		return "for no new volume"
	}
	return "for a new volume of " + humanSize(p.Room)
}

func (p poolStatus) growText() string {
	if p.GrowTo == 0 {
		return "none: it does not grow by itself"
	}
	return humanSize(p.GrowTo) + ", when a volume expands"
}

func (p poolStatus) devicesText() string {
	text := fmt.Sprint(p.Devices)
	if p.PendingDeletions > 0 {
		text += fmt.Sprintf("; deletions pending: %d", p.PendingDeletions)
	}
	if p.OpenOperations > 0 {
		text += fmt.Sprintf("; operations open: %d", p.OpenOperations)
	}
	return text
}

func (p poolStatus) writeFindings(line func(name, format string, args ...any)) {
	if p.ReadOnly != "" {
		line("read-only", "%s", p.ReadOnly)
	}
	if len(p.Ghosts) > 0 {
		line("ghosts", "%s", strings.Join(p.Ghosts, ", "))
	}
	if len(p.Orphans) > 0 {
		line("orphans", "thin devices %s", joinIDs(p.Orphans))
	}
	if len(p.Quarantined) > 0 {
		line("quarantined", "thin devices %s", joinIDs(p.Quarantined))
	}
	for _, warning := range p.Warnings {
		line("warning", "%s", warning)
	}
}

func joinIDs(ids []dm.DeviceID) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = fmt.Sprint(uint32(id))
	}
	return strings.Join(words, ", ")
}
