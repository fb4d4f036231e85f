package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	dm "github.com/csi-dmthin/csi-dmthin/pkg/devmapper"
)

// version is set by the linker.
var version = "unknown"

// versions are what a bug report begins with.
type versions struct {
	Version      string `json:"version"`
	Go           string `json:"go"`
	DeviceMapper string `json:"deviceMapper,omitempty"` // the kernel's interface
	ThinPool     string `json:"thinPool,omitempty"`     // the kernel's target
	Problem      string `json:"problem,omitempty"`      // why the kernel could not be asked
}

func versionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "version",
		Short: "print the versions of csi-dmthin and of the kernel's device-mapper",
		Args:  cobra.NoArgs,
	}
	form := outputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		v := versions{Version: version, Go: runtime.Version()}
		if err := v.askKernel(); err != nil {
			v.Problem = err.Error()
		}
		return form.print(command.OutOrStdout(), v, v.print)
	}
	return command
}

func (v *versions) askKernel() error {
	control, err := dm.Open()
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }() // nothing was changed
	k := traced{control}
	driver, err := dm.GetVersion(k)
	if err != nil {
		return err
	}
	v.DeviceMapper = driver.String()
	pool, err := dm.GetTarget(k, dm.ThinPool{}.TargetType())
	if err != nil {
		return err
	}
	v.ThinPool = pool.String()
	return nil
}

func (v *versions) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "csi-dmthin %s (%s)\n%s\n", v.Version, v.Go, v.kernelLine())
	return err
}

func (v *versions) kernelLine() string {
	if v.Problem != "" {
		return "kernel: " + v.Problem
	}
	return fmt.Sprintf("kernel: device-mapper %s, thin-pool %s", v.DeviceMapper, v.ThinPool)
}
