package graphtest_test

import (
	"fmt"
	"log"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"

	"github.com/csi-dmthin/csi-dmthin/test/graphtest"
)

// A program that lists the layers of a store on a thin pool. docs/podman.md shows it.
func Example() {
	if reexec.Init() {
		return
	}
	if err := graphtest.Register(); err != nil {
		log.Fatal(err)
	}
	store, err := storage.GetStore(storage.StoreOptions{
		GraphRoot:       "/var/lib/thin/graph",
		RunRoot:         "/run/thin",
		GraphDriverName: graphtest.Name,
		GraphDriverOptions: []string{
			"dm.datadev=/dev/disk/by-id/nvme-data",
			"dm.metadatadev=/dev/disk/by-id/nvme-meta",
			"dm.basesize=20G",
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	layers, err := store.Layers()
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range layers {
		fmt.Println(l.ID, l.Parent)
	}
	if _, err := store.Shutdown(false); err != nil {
		log.Fatal(err)
	}
}
