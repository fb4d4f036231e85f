package devmapper_test

import (
	"testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/devmapper/dmtest"
)

// The stories that the simulator passes too, on the real kernel.
func TestKernelStories(t *testing.T) {
	dmtest.RequireKernel(t)
	dmtest.Run(t, dmtest.RealMachine)
}
