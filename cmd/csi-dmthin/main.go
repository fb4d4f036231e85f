// Csi-dmthin serves device-mapper thin pools as Kubernetes volumes.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

func main() {
	root := &cobra.Command{
		Use:           "csi-dmthin",
		Short:         "node-local Kubernetes volumes on device-mapper thin pools",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	var logging flag.FlagSet
	klog.InitFlags(&logging)
	root.PersistentFlags().AddGoFlag(logging.Lookup("v"))
	root.AddCommand(serveCommand(), versionCommand())
	err := root.Execute()
	klog.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, "csi-dmthin:", err)
		os.Exit(1)
	}
}
