// Csi-dmthin serves device-mapper thin pools as Kubernetes volumes.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

func main() {
	err := rootCommand().Execute()
	klog.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, "csi-dmthin:", oneLine(err))
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:                "csi-dmthin",
		Short:              "node-local Kubernetes volumes on device-mapper thin pools",
		SilenceUsage:       true,
		SilenceErrors:      true,
		DisableSuggestions: true, // they take several lines
	}
	var logging flag.FlagSet
	klog.InitFlags(&logging)
	root.PersistentFlags().AddGoFlag(logging.Lookup("v"))
	root.AddCommand(
		serveCommand(), nodeCommand(), controllerCommand(), statusCommand(), volumesCommand(), snapshotsCommand(), checkCommand(), poolCommand(), adoptCommand(),
		logLevelCommand(), versionCommand(),
	)
	return root
}

// oneLine prints an error of several causes in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
