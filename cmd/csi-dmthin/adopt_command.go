package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

func adoptCommand() *cobra.Command {
	var c config
	var yes bool
	var device, name, size string
	command := &cobra.Command{
		Use:   "adopt POOL",
		Short: "make this node's root the owner of a pool, or give a name to a thin device that has none",
		Long: "Show what would become of each device if this node's root took the pool, and with --yes do it: for a pool whose\n" +
			"root directory was lost or is older than the pool. docs/repair.md tells when to, and when not to.\n\n" +
			"With --device and --name, give a name to an orphan or to a thin device in quarantine instead.\n\n" +
			"A running agent does it, and has the pool closed meanwhile. Where none listens, the command does it by itself,\n" +
			"and has to be given the agent's configuration.",
		Args: cobra.ExactArgs(1),
	}
	f, served := command.Flags(), pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.flags(served)
	f.AddFlagSet(served)
	for _, other := range []string{"endpoint", "node", "kubelet-dir", "http", "log-format", "volume-metrics", "measure-interval"} {
		f.Lookup(other).Hidden = true // they may stand in the file
	}
	f.BoolVar(&yes, "yes", false, "do it, rather than show it")
	f.StringVar(&device, "device", "", "`ID` of a thin device to give a name to")
	f.StringVar(&name, "name", "", "`name` for it: one that begins with v- makes it a volume")
	f.StringVar(&size, "size", "", "`size` for it; what it maps, if that is more")
	form := outputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		ordered := map[string]bool{}
		for _, flag := range []string{"pools", "state-dir", "device", "name", "size", "yes"} {
			ordered[flag] = f.Changed(flag)
		}
		served.AddFlagSet(command.InheritedFlags())
		if err := c.complete(served); err != nil {
			return err
		}
		a := adopter{config: &c, pool: args[0], told: ordered["pools"] || ordered["state-dir"], note: command.ErrOrStderr()}
		if !ordered["device"] && (ordered["name"] || ordered["size"]) {
			return errors.New("--name and --size are about a --device")
		}
		if !ordered["device"] {
			return a.adopt(command, *form, yes)
		}
		if ordered["yes"] {
			return errors.New("--device and --yes: adopt the pool or a device, one after the other")
		}
		want, err := parseDeviceAdoption(device, name, size)
		if err != nil {
			return err
		}
		return a.adoptDevice(command, *form, want)
	}
	return command
}

func parseDeviceAdoption(device, name, size string) (want deviceAdoption, err error) {
	id, err := strconv.ParseUint(device, 10, 24)
	if err != nil || id == 0 {
		return want, fmt.Errorf("--device %q: want a number from 1 to %d", device, dm.MaxDeviceID)
	}
	if name == "" {
		return want, errors.New("--device needs a --name")
	}
	want = deviceAdoption{ID: dm.DeviceID(id), Name: name}
	if size != "" {
		want.Size, err = parseSize("--size", size)
	}
	return want, err
}

// An adopter has an agent adopt, or does it.
type adopter struct {
	config *config
	pool   string
	told   bool // of pools, on the command line
	note   io.Writer
}

func (a adopter) adopt(command *cobra.Command, form output, yes bool) error {
	var done adoption
	err := a.agent(command.Context(), "adoption", adoptionRequest{yes}, &done)
	if errors.Is(err, errNoAgent) {
		var own *adoption
		if own, err = a.itself().adoptClosed(a.pool, yes); err == nil {
			done = *own
		}
	}
	if err != nil {
		return err
	}
	if err := form.print(command.OutOrStdout(), done, func(w io.Writer) error { return printAdoption(w, done) }); err != nil {
		return err
	}
	if done.Problem != "" {
		return fmt.Errorf("the agent could not open the pool afterwards: %s", done.Problem)
	}
	return nil
}

func (a adopter) adoptDevice(command *cobra.Command, form output, want deviceAdoption) error {
	var d listedDevice
	err := a.agent(command.Context(), "devices", want, &d)
	if errors.Is(err, errNoAgent) {
		d, err = a.itself().adoptDeviceClosed(a.pool, want)
	}
	if err != nil {
		return err
	}
	return form.print(command.OutOrStdout(), d, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "thin device %d is %s now, of %s%s\n", d.ThinID, d.Device, humanSize(d.Size), idText(d))
		return err
	})
}

func idText(d listedDevice) string {
	if d.ID == "" {
		return ", and no volume to the orchestrator"
	}
	return ": " + d.Kind + " " + d.ID
}

// agent has a running agent do it.
func (a adopter) agent(ctx context.Context, what string, order, into any) error {
	c := newClient(a.config.AdminSocket)
	if a.told {
		var level logLevel
		if err := c.get(ctx, "/v1/log-level", nil, &level); err == nil {
			return fmt.Errorf("an agent listens at %s and goes by its own configuration: leave --pools and --state-dir away", c.socket)
		}
	}
	return c.do(ctx, http.MethodPost, "/v1/pools/"+url.PathEscape(a.pool)+"/"+what, order, into)
}

// itself does it without an agent, and says so.
func (a adopter) itself() *admin {
	fmt.Fprintf(a.note, "no agent listens at %s: doing it here, below %s\n", a.config.AdminSocket, a.config.StateDir)
	return newAdmin(a.config, nil)
}

func printAdoption(w io.Writer, a adoption) error {
	copied := map[string]string{"root": "the root's copy of the journal", "label": "the label's copy of the journal"}[a.From]
	head := fmt.Sprintf("pool %s (%s) would be adopted as %s has it", a.Pool, a.UUID, copied)
	if a.Done {
		head = fmt.Sprintf("pool %s (%s) was adopted as %s had it", a.Pool, a.UUID, copied)
	}
	if _, err := fmt.Fprintln(w, head); err != nil {
		return err
	}
	rows := [][]string{{"DEVICE", "ID", "SIZE", "FS", "SOURCE", "BECOMES", "BECAUSE"}}
	for _, d := range a.Devices {
		row := []string{d.Name, "", "", d.FS, d.Parent, d.Becomes, d.Why}
		if d.Becomes != becomesLost {
			row[1], row[2] = fmt.Sprint(uint32(d.ID)), humanSize(d.Size)
		}
		rows = append(rows, row)
	}
	if len(a.Devices) > 0 {
		if err := printTable(w, rows...); err != nil {
			return err
		}
	}
	return printAdoptionEnd(w, a)
}

func printAdoptionEnd(w io.Writer, a adoption) error {
	count := map[string]int{}
	for _, d := range a.Devices {
		count[d.Becomes]++
	}
	text := fmt.Sprintf("%d kept, %d quarantined, %d lost.", count[becomesKept], count[becomesQuarantined], count[becomesLost])
	if !a.Done {
		text += " Nothing was changed: --yes does it."
	}
	if count[becomesKept] > 0 {
		text += "\nIn a cluster, PersistentVolumes with a handle that begins with " + a.Key + "\nname the node that they were made on. If that is another one, docs/kubernetes.md tells how to move them."
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
