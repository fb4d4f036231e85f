package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
)

func logLevelCommand() *cobra.Command {
	var socket string
	command := &cobra.Command{
		Use:   "log-level [N]",
		Short: "tell or set how much the agent logs",
		Long:  "Tell how much the agent logs, or set it until the agent ends. From 4 on it logs each request to device-mapper.",
		Args:  cobra.MaximumNArgs(1),
	}
	socketFlag(command, &socket)
	form := outputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		var level logLevel
		var err error
		if len(args) == 0 {
			err = newClient(socket).get(command.Context(), "/v1/log-level", nil, &level)
		} else if level.Level, err = strconv.Atoi(args[0]); err != nil {
			return fmt.Errorf("log-level %q: want 0 to %d", args[0], mostVerbose)
		} else {
			err = newClient(socket).do(command.Context(), http.MethodPut, "/v1/log-level", level, &level)
		}
		if err != nil {
			return err
		}
		return form.print(command.OutOrStdout(), level, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "log level %d\n", level.Level)
			return err
		})
	}
	return command
}
