package main

import (
	"context"
	"fmt"
	"io"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/kubernetes"
)

// orphansFlag lets volumes be listed that no PersistentVolume names, in a controller's pod:
// an agent knows no cluster.
func orphansFlag(command *cobra.Command) {
	var orphans bool
	command.Flags().BoolVar(&orphans, "orphans", false, "list those of all nodes that no PersistentVolume names, in the pod of a controller")
	command.MarkFlagsMutuallyExclusive("orphans", "admin-socket")
	command.MarkFlagsMutuallyExclusive("orphans", "pool")
	command.MarkFlagsMutuallyExclusive("orphans", "tree")
	others := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		if !orphans {
			return others(command, args)
		}
		cluster := &kubernetes.Cluster{}
		if err := cluster.Connect(); err != nil {
			return fmt.Errorf("--orphans is for the pod of a controller: %w", err)
		}
		found, err := orphansOf(command.Context(), envOr("CSI_ENDPOINT", defaultEndpoint), cluster.VolumeHandles)
		if err != nil {
			return err
		}
		form := output(command.Flag("output").Value.String())
		return form.print(command.OutOrStdout(), map[string]any{"orphans": found}, func(w io.Writer) error { return printOrphans(w, found) })
	}
}

// An orphan is what is printed of one.
type orphan struct {
	ID   string `json:"id"`
	Node string `json:"node"`
	Size int64  `json:"size"`
}

// orphansOf asks the controller that serves on a socket.
func orphansOf(ctx context.Context, endpoint string, known func(context.Context) (map[string]bool, error)) ([]orphan, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	list := func(ctx context.Context, r *csipb.ListVolumesRequest) (*csipb.ListVolumesResponse, error) {
		return csipb.NewControllerClient(conn).ListVolumes(ctx, r)
	}
	found, err := gateway.Orphans(ctx, list, known)
	orphans := make([]orphan, 0, len(found))
	for _, o := range found {
		orphans = append(orphans, orphan{o.ID, o.Node, o.Bytes})
	}
	return orphans, err
}

func printOrphans(w io.Writer, orphans []orphan) error {
	rows := [][]string{{"ID", "NODE", "SIZE"}}
	for _, o := range orphans {
		rows = append(rows, []string{o.ID, o.Node, humanSize(o.Size)})
	}
	return printTable(w, rows...)
}
